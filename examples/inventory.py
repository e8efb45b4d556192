"""A small shop's inventory: what is there, what it is worth, what must be ordered."""

from dataclasses import dataclass, field


@dataclass
class Item:
    """One kind of thing on the shelf."""

    name: str
    price: float
    quantity: int = 0
    minimum: int = 1

    def value(self) -> float:
        """What all pieces of it are worth."""
        return self.price * self.quantity

    def is_low(self) -> bool:
        """Whether it must be ordered."""
        return self.quantity < self.


@dataclass
class Inventory:
    """The items by name."""

    items: dict[str, Item] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Put a new item on the shelf."""
        if item.name in self.items:
            raise ValueError(f"{item.name} is there already")
        self.items[item.name] = item

    def remove(self, name: str) -> Item:
        """Take an item off the shelf."""
        if name not in self.items:
            raise KeyError(name)
        return self.items.pop(name)

    def restock(self, name: str, quantity: int) -> None:
        """Add some pieces of an item."""
        self.items[name].quantity += quantity

    def total_value(self) -> float:
        """What everything together is worth."""
        return sum(item.value() for item in self.items.values())

    def low_items(self) -> list[Item]:
        """The items that must be ordered."""
        return [item for item in self.items.values() if item.is_low()]

    def cheapest(self) -> Item:
        """The item with the lowest price."""
        return min(self.items.values(), key=lambda item: item.price)

    def most_expensive(self) -> Item:
        """The item with the highest price."""
        return max(


def main() -> None:
    inventory = Inventory()
    inventory.add(Item("tea", 3.5, quantity=12, minimum=5))
    inventory.add(Item("coffee", 7.25, quantity=2, minimum=4))
    inventory.restock("tea", 3)
    print(f"worth {inventory.total_value():.2f}")
    for item in inventory.low_items():
        print(f"order {item.name}")


if __name__ == "__main__":
    main()
