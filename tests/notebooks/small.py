"""Small parameters for a quick rerun of every notebook by papermill."""

SMALL: dict[str, dict[str, object]] = {
    "01_language_models": {
        "seed": 1,
        "source_length": 5_000,
        "evaluation_size": 20,
        "text": "A dull film.",
        "max_new_tokens": 8,
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
