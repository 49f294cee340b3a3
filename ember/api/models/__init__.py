"""models(model, prompt, **params): call a language model as one Python function.

    from ember.api import models

    response = models("gpt-5.6-sol", "What is the capital of France?", temperature=0)
    print(response.text, response.usage.total_tokens, response.usage.cost)

    for chunk in models.stream("claude-opus-5-5", "Tell a story."):  # in pieces
        print(chunk.text, end="")

    response = await models.acall("gemini-3.8-flash", "Hello")  # in an event loop; also astream
    ask = models.instance("groq/openai/gpt-oss-20b", system="Be brief.")  # keeps parameters
    print(ask("What is the capital of Spain?"))

`help(Models)` lists the arguments and errors; `ModelRegistry` counts the usage of models.
"""

import sys

from ember.models.function import CallablePackage, ModelBinding, Models
from ember.models.registry import ModelRegistry, UsageSummary
from ember.models.streams import AsyncStream, Stream

__all__ = ["AsyncStream", "ModelBinding", "ModelRegistry", "Models", "Stream", "UsageSummary"]


# `from ember.api import models` must be a function, and `from ember.api.models import ...` needs a
# package of the same name: so the package itself is callable.
sys.modules[__name__].__class__ = CallablePackage
