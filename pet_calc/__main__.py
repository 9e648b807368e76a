"""``python -m pet_calc``: the command line without the installed script."""

from pet_calc.cli import main

if __name__ == "__main__":
    main()
