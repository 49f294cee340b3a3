"""`python -m ember_testing.cli` is `ember-cassettes`."""

from ember_testing.cli import main

if __name__ == "__main__":
    main(prog_name="ember-cassettes")
