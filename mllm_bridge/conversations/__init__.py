"""What is said to a host and by it: conversations with images and boxes, questions, answers, and the loss on them."""
