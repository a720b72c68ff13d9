"""What names a plan's way of drawing."""

from __future__ import annotations

from illume_loop.protocols import Sampling


def test_plans_of_before_top_p_keep_their_names() -> None:
    assert Sampling(1.5, 0.9, 30).content() == {"guidance_scale": 1.5, "temperature": 0.9, "top_k": 30}
    assert Sampling(top_p=0.9).content()["top_p"] == 0.9
