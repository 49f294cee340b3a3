"""Run `ember-cassettes` as `python -m ember_testing.cli`."""

from ember_testing.cli import main

if __name__ == "__main__":
    main(prog_name="ember-cassettes")
