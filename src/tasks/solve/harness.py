"""Runs the checks of a program so that the program cannot decide whether they pass.

There are two processes. The judge reads the checks, and a secret word, from standard input, and prints
the word if the checks pass. The program runs in the other process and gets neither. They exchange
lines of JSON: the checks call the program's functions, and the results come back as plain data. The
judge rebuilds them, so that no object of the program decides whether it equals what was expected.
Other objects stay where they are, and the other process holds a handle to each, which it can call,
iterate over and ask for attributes.

The program may find a way to write to our standard output, but it does not know the word: it can read
neither the memory nor the descriptors of a process that is not dumpable (prctl(2)).
"""

import builtins
import collections
import ctypes
import importlib
import json
import os
import sys
import types

PLAIN = (type(None), bool, int, float, str)
SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
# Types of numbers that are sent as text, and their modules.
TEXTS = {"Decimal": "decimal", "Fraction": "fractions"}


class Side:
    """One process's end of the connection, with the handles that it holds and has given out."""

    def __init__(self, reader, writer, allowed):
        self.reader, self.writer = os.fdopen(reader, "r"), os.fdopen(writer, "w")
        # What the other side may do with our objects.
        self.allowed = allowed
        # Our objects that the other side has handles to, and our handles to its objects.
        self.kept, self.numbers, self.handles = [], {}, {}

    def encode(self, value):
        if hasattr(type(value), "tolist"):
            value = value.tolist()
        for plain in PLAIN:
            if isinstance(value, plain):
                return value if type(value) is plain else plain(value)
        if isinstance(value, dict):
            return ["dict", [[self.encode(key), self.encode(value[key])] for key in value]]
        for name, kind in SEQUENCES.items():
            if isinstance(value, kind):
                return [name, [self.encode(item) for item in value]]
        if TEXTS.get(type(value).__name__) == type(value).__module__:
            return [type(value).__name__, str(value)]
        if isinstance(value, (bytes, bytearray)):
            return [type(value).__name__, value.hex()]
        if isinstance(value, complex):
            return ["complex", [value.real, value.imag]]
        if isinstance(value, range):
            return ["range", [value.start, value.stop, value.step]]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, Handle):
            return ["yours", value._number]
        if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
            return ["builtin", value.__name__]
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.kept)
            self.kept.append(value)
        number = self.numbers[id(value)]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", [number, value.__name__]]
        return ["mine", number]

    def decode(self, value):
        if not isinstance(value, list):
            return value
        kind, value = value
        if kind == "dict":
            return {self.decode(key): self.decode(item) for key, item in value}
        if kind in SEQUENCES:
            return SEQUENCES[kind](self.decode(item) for item in value)
        if kind in TEXTS:
            return getattr(importlib.import_module(TEXTS[kind]), kind)(value)
        if kind in ("bytes", "bytearray"):
            return getattr(builtins, kind).fromhex(value)
        if kind in ("complex", "range"):
            return getattr(builtins, kind)(*value)
        if kind == "module":
            return importlib.import_module(value)
        if kind == "builtin":
            found = getattr(builtins, value)
            if isinstance(found, type):
                return found
        if kind == "yours":
            return self.kept[value]
        if kind == "mine":
            return self.handles.setdefault(value, Handle(self, value))
        if kind == "exception":
            number, name = value
            if number not in self.handles:
                self.handles[number] = type(name, (Exception,), {})
            return self.handles[number]
        raise ValueError(kind)

    def send(self, message):
        self.writer.write(json.dumps(message) + "\n")
        self.writer.flush()

    def ask(self, operation, *arguments):
        """Has the other side do something, and answers its requests meanwhile."""
        self.send(["ask", operation, [self.encode(argument) for argument in arguments]])
        for line in self.reader:
            kind, *message = json.loads(line)
            if kind == "ask":
                self.answer(*message)
            elif kind == "raise":
                raised = self.decode(message[0])
                # Where the checks iterate, this would look like the end of the iteration.
                if issubclass(raised, StopIteration) and operation != "next":
                    raised = RuntimeError
                if issubclass(raised, BaseException):
                    raise raised(*self.decode(message[1]))
            else:
                value, changed = message
                if operation == "call" and changed is not None:
                    for argument, now in zip(arguments[1], self.decode(changed)):
                        change(argument, now)
                return self.decode(value)
        raise EOFError("the program has ended")

    def answer(self, operation, encoded):
        try:
            # Only on objects that it was given: with Python's own types it could make objects here.
            if operation not in self.allowed or encoded[0][0] != "yours":
                raise ValueError("this is not allowed")
            target, *arguments = [self.decode(argument) for argument in encoded]
            value = self.encode(OPERATIONS[operation](target, *arguments))
            changed = None
            if operation == "call":
                now = self.encode(arguments[0])
                changed = now if now != encoded[1] else None
            self.send(["value", value, changed])
        except BaseException as error:
            texts = [item for item in error.args if isinstance(item, PLAIN)]
            self.send(["raise", self.encode(type(error)), self.encode(texts)])


# What can be done with a handle.
OPERATIONS = {
    "attribute": getattr,
    "bool": bool,
    "call": lambda target, given, named: target(*given, **named),
    "equal": lambda target, other: bool(target == other),
    "item": lambda target, key: target[key],
    "iter": iter,
    "len": len,
    "next": next,
    "repr": repr,
    "str": str,
}


def change(argument, now):
    """Changes an argument as the other side has changed its copy."""
    if isinstance(argument, list):
        argument[:] = now
    elif isinstance(argument, (dict, set)):
        argument.clear()
        argument.update(now)
    elif isinstance(argument, (bytearray, collections.deque)):
        argument.clear()
        argument.extend(now)


class Handle:
    """An object of the other side. It equals no plain data, and has neither order nor arithmetic:
    the program could make them return anything."""

    def __init__(self, side, number):
        self._side, self._number = side, number

    def __call__(self, *given, **named):
        return self._side.ask("call", self, given, named)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._side.ask("attribute", self, name)

    def __iter__(self):
        return self._side.ask("iter", self)

    def __next__(self):
        return self._side.ask("next", self)

    def __getitem__(self, key):
        return self._side.ask("item", self, key)

    def __len__(self):
        return self._side.ask("len", self)

    def __bool__(self):
        return self._side.ask("bool", self)

    def __str__(self):
        return self._side.ask("str", self)

    def __repr__(self):
        return self._side.ask("repr", self)

    def __eq__(self, other):
        return isinstance(other, Handle) and self._side.ask("equal", self, other)

    def __hash__(self):
        return self._number


def run(side):
    """Runs the program, in its own process."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    sys.argv = ["solution"]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = "solution"
    # Wait until the judge is unreadable.
    side.reader.readline()
    with open("solution", encoding="utf-8") as file:
        code = compile(file.read(), "solution", "exec")
    exec(code, module.__dict__)
    side.send(side.encode(module.__dict__.__getitem__))
    for line in side.reader:
        _, *message = json.loads(line)
        side.answer(*message)
    os._exit(0)


class Names(dict):
    """What the checks can name: their own names, Python's, and only then the program's."""

    def __init__(self, program, function):
        super().__init__(__name__="checks")
        self.program, self.function = program, function

    def __missing__(self, name):
        if name != self.function and hasattr(builtins, name):
            raise KeyError(name)
        value = self.program(name)
        if name != self.function and name in getattr(sys, "stdlib_module_names", ()):
            return importlib.import_module(name)
        return value


def judge(side):
    """Runs the checks, in their own process."""
    PR_SET_DUMPABLE = 4
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        sys.exit("a process cannot make itself unreadable here")
    task = json.loads(sys.stdin.buffer.read())
    side.send("go")
    program = side.decode(json.loads(side.reader.readline()))
    exec(compile(task["checks"], "checks", "exec"), Names(program, task["function"]))
    print(task["word"], flush=True)
    os._exit(0)


def main():
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    # Fork before the task is read: a child knows all that its parent knows.
    (calls, to_program), (answers, to_judge) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_program)
        os.close(answers)
        run(Side(calls, to_judge, OPERATIONS))
    else:
        os.close(calls)
        os.close(to_judge)
        # Through a function's attributes, the program could reach all of Python.
        judge(Side(answers, to_program, {"call", "iter", "next"}))


main()
