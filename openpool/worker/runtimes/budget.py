"""Who may be in the memory of the graphics card: bookkeeping, no measuring.

What a model takes is what its runtime says once it is loaded, and what the worker's owner wrote
down before that. The one that was idle longest makes room for another.
"""

from typing import Protocol


class Tenant(Protocol):
    """Something that takes graphics memory."""

    used_at: float

    @property
    def vram_mb(self) -> int:
        """What it takes, or will take."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it at this moment."""

    def leave(self) -> None:
        """Give the memory free."""


class VramBudget:
    """The graphics memory of one worker; without a limit everybody fits."""

    def __init__(self, total_mb: int | None) -> None:
        self._total_mb = total_mb
        self._tenants: list[Tenant] = []

    @property
    def used_mb(self) -> int:
        """What all that are in take together."""
        return sum(tenant.vram_mb for tenant in self._tenants)

    def admit(self, tenant: Tenant, *, evict: bool = False) -> bool:
        """Whether it may move in; with `evict`, idle ones have to go if that makes enough room."""
        if tenant in self._tenants or self._total_mb is None or not tenant.vram_mb:
            self._enter(tenant)
            return True
        missing_mb = self.used_mb + tenant.vram_mb - self._total_mb
        leaving = self._leaving(missing_mb) if evict and missing_mb > 0 else []
        if missing_mb > sum(each.vram_mb for each in leaving):
            return False
        for each in leaving:
            self.release(each)
            each.leave()
        self._enter(tenant)
        return True

    def release(self, tenant: Tenant) -> None:
        """It has left."""
        if tenant in self._tenants:
            self._tenants.remove(tenant)

    def _enter(self, tenant: Tenant) -> None:
        if tenant not in self._tenants:
            self._tenants.append(tenant)

    def _leaving(self, missing_mb: int) -> list[Tenant]:
        """Idle ones, longest unused first, until enough would be free."""
        leaving: list[Tenant] = []
        for tenant in sorted(self._tenants, key=lambda each: each.used_at):
            if missing_mb <= 0:
                break
            if tenant.is_idle and tenant.vram_mb:
                leaving.append(tenant)
                missing_mb -= tenant.vram_mb
        return leaving
