"""What is said to a host and by it: conversations with images and places, questions, answers, and the loss on them."""
