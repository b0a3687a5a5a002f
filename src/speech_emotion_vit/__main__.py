"""Run the command line as ``python -m speech_emotion_vit``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="speech-emotion-vit")
