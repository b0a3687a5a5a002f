"""Tell the emotion in one audio file.

python examples/predict_file.py examples/clips/anger.flac
"""

import sys

from speech_emotion_vit import EmotionClassifier

classifier = EmotionClassifier()
prediction = classifier.predict(sys.argv[1])
print(f"{prediction.label} ({prediction.score:.0%})")
for label, probability in prediction.probabilities.items():
    print(f"{label:>10}  {probability:6.1%}  {'#' * round(40 * probability)}")
for warning in prediction.warnings:
    print(f"warning: {warning}")
