"""bigft fine-tunes large pretrained models as one YAML file describes it."""

__version__ = "0.1.0"
