"""Networks: the classifier that scores windows, and the policies that move them."""
