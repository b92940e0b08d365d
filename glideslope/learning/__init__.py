"""What the trainings of lite0's text tower and of the models share: a loss, and how the learning rate falls."""
