"""What a preset is: one complete, frozen description of a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from photowalk.models.splat_head import SplatHead
from photowalk.world.generator import Generator
from photowalk.world.placement import Placement, choose_placement
from photowalk.world.residency.plan import Footprint, choose_plan


@dataclass(frozen=True)
class Preset:
    name: str
    height: int
    width: int
    chunk_frames: int
    licence: str  # of the weights
    assemble: Callable[[Placement], Generator]
    # at a height and width, and whether branches of guidance run together; None: too small to plan for
    footprint: Callable[[int, int, bool], Footprint] | None = None
    splat_head: Callable[[], SplatHead] | None = None  # corrects the splats of its walks; None: they are as they are

    def build(
        self,
        placement: Placement | None = None,
        *,
        size: tuple[int, int] | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> Generator:
        """The generator with its weights loaded, on the given device or the best one there is. What is large is laid
        out for frames of `size`, by default the preset's, and `on_note` is told how. Raises PlanError where no layout
        fits."""
        placement = placement or choose_placement()
        asked, memory = placement.vram is not None or placement.weights is not None, placement.memory
        if self.footprint is None or memory is None:
            if asked:
                small = f"{self.name} is small and needs no GPU memory to be set aside"
                on_note(
                    f"{small if self.footprint is None else 'torch sees no GPU here'}; --vram and --weights do nothing"
                )
            return self._assembled(placement)
        needed = self.footprint(*(size or (self.height, self.width)), placement.branches_together)
        plan = choose_plan(needed, memory, placement.host, placement.weights)
        on_note(plan.described())
        return self._assembled(replace(placement, plan=plan))

    def _assembled(self, placement: Placement) -> Generator:
        generator = self.assemble(placement)
        if placement.compiled:
            for block in generator.denoiser.blocks:
                block.compile()
        return generator
