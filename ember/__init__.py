"""Ember: call a language model as one Python function.

from ember.api import models

response = models("gpt-5.6-sol", "What is the capital of France?")
"""
