"""A plain-text ledger: reads transactions, checks that they balance, prints reports.

A transaction is a date, a description and two or more postings:

    2026-03-01 Groceries
        expenses:food        42.50
        assets:checking     -42.50

One amount may be left out; it is then whatever makes the transaction balance.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

COMMENT = ("#", ";")
CENT = Decimal("0.01")


class LedgerError(Exception):
    """Something is wrong with the ledger's text."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


@dataclass(frozen=True)
class Posting:
    """An amount that goes to an account."""

    account: str
    amount: Decimal

    def __str__(self) -> str:
        return f"    {self.account:<32}{self.amount:>12.2f}"


@dataclass
class Transaction:
    """Postings that belong together and sum to zero."""

    date: datetime.date
    description: str
    postings: list[Posting] = field(default_factory=list)
    line: int = 0

    def total(self) -> Decimal:
        """The sum of all postings, zero if the transaction balances."""
        return sum((posting.amount for posting in self.postings), Decimal(0))

    def is_balanced(self) -> bool:
        """Whether nothing is left over."""
        return self.total() == 0

    def accounts(self) -> set[str]:
        """The accounts it touches."""
        return {posting.account for posting in self.postings}

    def __str__(self) -> str:
        lines = [f"{self.date.isoformat()} {self.description}"]
        lines.extend(str(posting) for posting in self.postings)
        return "\n".join(lines)


def parse_date(text: str, line: int) -> datetime.date:
    """Reads a date like 2026-03-01."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise LedgerError(line, f"{text!r} is not a date") from None


def parse_amount(text: str, line: int) -> Decimal:
    """Reads an amount like -1,042.50."""
    try:
        amount = Decimal(text.replace(",", ""))
    except InvalidOperation:
        raise LedgerError(line, f"{text!r} is not an amount") from None
    if not amount.is_finite():
        raise LedgerError(line, f"{text!r} is not a finite amount")
    return amount.quantize(CENT)


class Parser:
    """Turns lines into transactions."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = enumerate(lines, start=1)
        self.current: Transaction | None = None
        self.open_account: str | None = None

    def parse(self) -> Iterator[Transaction]:
        """Yields the transactions in the order of the text."""
        for number, line in self.lines:
            stripped = line.strip()
            if not stripped:
                yield from self.finish()
            elif stripped.startswith(COMMENT):
                continue
            elif line[0].isspace():
                self.posting(number, stripped)
            else:
                yield from self.finish()
                self.header(number, stripped)
        yield from self.finish()

    def header(self, number: int, line: str) -> None:
        """Begins a transaction."""
        date, _, description = line.partition(" ")
        self.current = Transaction(
            date=parse_date(date, number),
            description=description.strip(),
            line=number,
        )

    def posting(self, number: int, line: str) -> None:
        """Adds a posting to the current transaction."""
        if self.current is None:
            raise LedgerError(number, "a posting outside a transaction")
        account, *rest = line.rsplit(maxsplit=1)
        if rest:
            amount = parse_amount(rest[0], number)
            self.current.postings.append(Posting(account, amount))
        elif self.open_account is None:
            self.open_account = account
        else:
            raise LedgerError(number, "only one amount may be left out")

    def finish(self) -> Iterator[Transaction]:
        """Ends the current transaction, if there is one."""
        transaction = self.current
        if transaction is None:
            return
        if self.open_account is not None:
            missing = -transaction.total()
            transaction.postings.append(Posting(self.open_account, missing))
        if not transaction.is_balanced():
            total = transaction.total()
            raise LedgerError(transaction.line, f"off by {total}")
        self.current = None
        self.open_account = None
        yield transaction


@dataclass
class Ledger:
    """All transactions, in the order of their dates."""

    transactions: list[Transaction] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Reads a file."""
        with path.open(encoding="utf-8") as file:
            return cls.from_lines(file)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Ledger:
        """Reads lines."""
        transactions = sorted(Parser(lines).parse(), key=lambda item: item.date)
        return cls(transactions)

    def between(
        self,
        start: datetime.date | None = None,
        end: datetime.date | None = None,
    ) -> Ledger:
        """The transactions from start on and before end."""
        selected = []
        for transaction in self.transactions:
            if start is not None and transaction.date < start:
                continue
            if end is not None and transaction.date >= end:
                break
            selected.append(transaction)
        return Ledger(selected)

    def balances(self) -> dict[str, Decimal]:
        """What is on each account, in the order of their names."""
        balances: defaultdict[str, Decimal] = defaultdict(Decimal)
        for transaction in self.transactions:
            for posting in transaction.postings:
                balances[posting.account] += posting.amount
        return dict(sorted(balances.items()))

    def accounts(self) -> list[str]:
        """The names of all accounts."""
        return list(self.balances())

    def balance(self, account: str) -> Decimal:
        """What is on an account and those below it."""
        total = Decimal(0)
        for name, amount in self.balances().items():
            if name == account or name.startswith(account + ":"):
                total += amount
        return total

    def register(self, account: str) -> Iterator[tuple[Transaction, Decimal, Decimal]]:
        """The changes of an account, each with the balance after it."""
        balance = Decimal(0)
        for transaction in self.transactions:
            for posting in transaction.postings:
                if posting.account == account:
                    balance += posting.amount
                    yield transaction, posting.amount, balance

    def by_month(self, account: str) -> dict[str, Decimal]:
        """The changes of an account and those below it, by month."""
        months: defaultdict[str, Decimal] = defaultdict(Decimal)
        for transaction in self.transactions:
            month = transaction.date.strftime("%Y-%m")
            for posting in transaction.postings:
                if posting.account == account or posting.account.startswith(account + ":"):
                    months[month] += posting.amount
        return dict(months)


def print_balances(ledger: Ledger) -> None:
    """Prints a line for each account, and the accounts above it."""
    shown: set[str] = set()
    for account, amount in ledger.balances().items():
        parts = account.split(":")
        for depth in range(1, len(parts)):
            parent = ":".join(parts[:depth])
            if parent not in shown:
                shown.add(parent)
                indent = "  " * (depth - 1)
                print(f"{ledger.balance(parent):>12.2f}  {indent}{parts[depth - 1]}")
        indent = "  " * (len(parts) - 1)
        print(f"{amount:>12.2f}  {indent}{parts[-1]}")


def print_register(ledger: Ledger, account: str) -> None:
    """Prints the changes of an account."""
    for transaction, amount, balance in ledger.register(account):
        description = transaction.description[:30]
        print(f"{transaction.date}  {description:<30}{amount:>12.2f}{balance:>12.2f}")


def print_months(ledger: Ledger, account: str) -> None:
    """Prints a bar for each month."""
    months = ledger.by_month(account)
    if not months:
        print(f"nothing on {account}")
        return
    largest = max(abs(amount) for amount in months.values())
    for month, amount in months.items():
        width = int(40 * abs(amount) / largest) if largest else 0
        print(f"{month}{amount:>12.2f}  {'#' * width}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Reports from a plain-text ledger")
    parser.add_argument("file", type=Path, help="the ledger")
    parser.add_argument("--start", type=datetime.date.fromisoformat)
    parser.add_argument("--end", type=datetime.date.fromisoformat)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("balances", help="what is on each account")
    register = commands.add_parser("register", help="the changes of an account")
    register.add_argument("account")
    months = commands.add_parser("months", help="the changes of an account by month")
    months.add_argument("account")
    commands.add_parser("print", help="all transactions")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the program and answers its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        ledger = Ledger.read(options.file).between(options.start, options.end)
    except OSError as error:
        print(f"cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return 1
    except LedgerError as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    if options.command == "balances":
        print_balances(ledger)
    elif options.command == "register":
        print_register(ledger, options.account)
    elif options.command == "months":
        print_months(ledger, options.account)
    else:
        print("\n\n".join(str(transaction) for transaction in ledger.transactions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
