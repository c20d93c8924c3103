"""A linear head on the features of a network that stays as it is: features once, then many passes over them."""
