"""The page of `speech-emotion-vit demo` as a Space of the Hugging Face Hub."""

from speech_emotion_vit.demo import launch

if __name__ == "__main__":
    launch(host="0.0.0.0", port=7860)  # a Space's container is reached from outside
