"""The price tables that Ember ships, and how their names map to those of genai-prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PRICES = Path(__file__).resolve().parents[3] / "ember/pricing/prices"

# Ember's provider -> the provider in genai-prices.
PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "cerebras": "cerebras",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "groq": "groq",
    "mistral": "mistral",
    "moonshotai": "moonshotai",
    "openai": "openai",
    "openai-responses": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "xai": "x-ai",
}
# Sellers that only a base URL selects; their names are the same in both.
SELLERS = [
    *("arcee", "avian", "aws", "baseten", "cloudflare", "cohere", "databricks", "doubleword"),
    *("huggingface_cerebras", "huggingface_fireworks-ai", "huggingface_groq"),
    *("huggingface_hyperbolic", "huggingface_nebius", "huggingface_novita", "huggingface_nscale"),
    *("huggingface_ovhcloud", "huggingface_publicai", "huggingface_sambanova"),
    *("huggingface_together", "meta", "minimax", "novita", "ovhcloud", "quicksilverpro"),
    *("typesafe", "zai", "zhipuai"),
]
PROVIDERS |= {name: name for name in SELLERS}
# Rows of genai-prices that the snapshot omits; ember/pricing/genai_prices.py gives the reasons.
REFUSED = {
    ("cerebras", "qwen-3-coder-480b"),
    ("google", "gemini-1.0-pro-vision-001"),
    ("google", "gemini-pro"),
    ("openrouter", "gemini-2.5-pro-exp-03-25"),
    ("openrouter", "google/gemini-flash-1.5-8b-exp"),
    ("openrouter", "google/lyria-3-clip-preview"),
    ("openrouter", "google/lyria-3-pro-preview"),
    ("openrouter", "stealth/crouton-alpha"),
}


def tables() -> dict[str, list[dict[str, Any]]]:
    """The snapshot's rows by provider."""
    return {
        path.stem: json.loads(path.read_text())
        for path in PRICES.iterdir()
        if path.name != "about.json"
    }
