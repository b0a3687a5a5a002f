"""What this package costs beside what people use today, measured in one run.

pip install -e ".[bench]"
python -m benchmarks                 # everything, writes docs/benchmarks.md
python -m benchmarks --quick         # a few seconds, prints
"""
