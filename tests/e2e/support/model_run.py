"""A round of the model: operations by chance from a seed, and the fewest of them that still fail."""

import random
import re
import time

import psycopg

from .model import Fault, Model
from .model_statements import EVIL, FEATURES, ROLES, USERS, Statements


class Run:
    """One round: databases of its own, and about `length` operations."""

    def __init__(self, server, relay_role, seed, length, features=FEATURES):
        self.server, self.relay_role = server, relay_role
        self.seed, self.length, self.features = seed, length, features
        self.operations = []
        self.figures = {}
        self.last_fault = None

    def _model(self):
        return Model(self.server, self.relay_role, USERS, EVIL + ROLES)

    def go(self):
        """None, or the fault."""
        model = self._model()
        try:
            statements = Statements(random.Random(self.seed), model, self.features)
            for operation in statements.begin():
                self._one(model, statements, operation)
            while len(self.operations) < self.length:
                for operation in statements.next():
                    self._one(model, statements, operation)
            self._one(model, statements, ("check", "commit"))
            model.check_equal()
        except Fault as fault:
            self.last_fault = fault
            return fault
        finally:
            self.figures = model.figures
            model.close()
        return None

    def _one(self, model, statements, operation):
        if operation[0] == "forget":
            statements.forget()
            return
        self.operations.append(operation)
        model.run(operation)

    def replay(self, operations):
        """The fault that operations lead to, or None."""
        model = self._model()
        try:
            for operation in operations:
                model.run(operation)
            model.check_equal()
        except Fault as fault:
            return fault
        except psycopg.Error:
            return None
        finally:
            model.close()
        return None

    def shrink(self, fault, seconds):
        """The fewest operations found within a time that end in a fault of the same kind.

        Excuses stay: without one, what it allows would be a fault.
        """
        until = time.monotonic() + seconds
        best = list(self.operations)

        def fails(without):
            found = self.replay(without)
            if found is None or found.kind != fault.kind:
                return False
            self.last_fault = found
            return True

        # All that is about one table, or one session, at once.
        words = sorted({word for operation in best for word in _names(operation)})
        for word in words:
            without = [o for o in best[:-1]
                       if o[0] == "excuse" or word not in _names(o)] + best[-1:]
            if len(without) < len(best) and time.monotonic() < until and fails(without):
                best = without
        size = max(1, len(best) // 2)
        while size >= 1 and time.monotonic() < until:
            at = 0
            while at < len(best) - 1 and time.monotonic() < until:
                end = min(at + size, len(best) - 1)
                kept = [o for o in best[at:end] if o[0] == "excuse"]
                without = best[:at] + kept + best[end:]
                if len(without) < len(best) and fails(without):
                    best = without
                    at += len(kept)
                else:
                    at += size
            size //= 2
        return best


def _names(operation):
    """The session of an operation, and the tables that it names."""
    return {operation[1] if operation[0] == "sql" else operation[0],
            *re.findall(r"\b(?:orders|nokey|defer|parent|child|tree|part|trig|audit|ruled|gen|types|big"
                        r"|Odd)\b|\b(?:create trigger|begin|set)\b", " ".join(map(str, operation)))}
