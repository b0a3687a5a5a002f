"""What this package costs beside what people use today, measured in one run.

pip install -e ".[bench]"
python -m benchmarks                 # everything, writes docs/BENCHMARKS.md
python -m benchmarks --quick         # a few seconds, prints
"""
