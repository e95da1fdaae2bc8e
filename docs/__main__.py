"""`python -m docs`: write the pages that are made of the code, and the index of the decisions."""

from docs import command_reference, decision_index, settings_reference


def main() -> None:
    for page in (settings_reference, command_reference, decision_index):
        page.PAGE.write_text(page.content())


if __name__ == "__main__":
    main()
