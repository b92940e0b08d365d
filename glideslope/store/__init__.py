"""What is kept on disk: JSON and YAML read strictly, whole-or-nothing writes, records of stages, weights."""
