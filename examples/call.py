"""Put an emotion beside every line of a transcript or a diarisation, and one beside every speaker.

python examples/call.py call.wav call.srt
"""

from __future__ import annotations

import argparse

from speech_emotion_vit import EmotionClassifier

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("recording")
parser.add_argument("segments", help="RTTM, SRT, WebVTT, CSV, or Whisper's JSON")
parser.add_argument("--subtitles", metavar="F", help="write them to this file, with the emotions")
arguments = parser.parse_args()

classifier = EmotionClassifier()
timeline = classifier.timeline(arguments.recording, segments=arguments.segments)
for segment in timeline:
    answer = f"{segment.label} {segment.score:.0%}" if segment.label else "nobody speaks"
    print(f"{segment.start:7.1f} s  {segment.speaker or '-':<12}  {answer:<15}  {segment.text or ''}")
for speaker in timeline.speakers():
    if speaker.speaker:
        print(f"{speaker.speaker}: {speaker.label}, of {speaker.speech:.1f} s of speech")
if arguments.subtitles:
    with open(arguments.subtitles, "w", encoding="utf-8") as file:
        file.write(timeline.to_webvtt())
