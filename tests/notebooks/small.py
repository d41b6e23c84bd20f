"""Small parameters for a quick rerun of every notebook by papermill."""

SMALL: dict[str, dict[str, object]] = {
    "01_language_models": {
        "seed": 1,
        "source_length": 5_000,
        "evaluation_size": 20,
        "text": "A dull film, and far too long.",
        "max_new_tokens": 8,
    },
    "02_cross_entropy_gradients": {
        "seed": 1,
        "vocabulary": ["bad", "fine", "good"],
        "target": "good",
        "hidden_size": 4,
        "sequence_length": 6,
        "steps": 5,
        "full_vocabulary_size": 256,
        "full_hidden_size": 64,
    },
    "03_attention_and_pretraining": {
        "mini_steps": 6,
        "mini_width": 32,
        "mini_heads": 2,
        "mini_layers": 1,
        "mini_context": 32,
        "training_context": 64,
        "widths": [8, 512],
    },
    "10_sentiment_run": {
        "methods": ["lora+prefix"],
        "seeds": [1],
        "train_size": 16,
        "validation_size": 16,
        "epochs": 1,
        "rank": 2,
        "prefix_length": 4,
    },
}
