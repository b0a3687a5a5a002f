"""Training and evaluation: corpora, protocols, features, augmentation, stages, the loop, metrics and reports.

Needs the ``train`` extra: ``pip install 'speech-emotion-vit[train]'``.
"""
