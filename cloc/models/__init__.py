"""The model, as transformers has models: configuration, processors, encoders, the Prompter and the detector."""
