"""What a tower is: where its weights come from, how their keys are named, what it gives, and how it is proven."""
