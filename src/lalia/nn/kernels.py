"""Operations of a Transformer in the form that runs fastest.

On a GPU they are PyTorch's own. In training on a CPU the backward passes of these are slow, made of many
small operations or not blocked for the cache, and are written out here.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["RMSNorm", "attend", "rotate", "whole_turn"]


def _trains_on_cpu(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and tensors[0].device.type == "cpu" and any(t.requires_grad for t in tensors)


class RMSNorm(nn.RMSNorm):
    """``torch.nn.RMSNorm``, faster on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.eps is not None
        if x.device.type != "cpu" or x.dtype != self.weight.dtype or x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)
        if _trains_on_cpu(x, self.weight):
            return _RMSNorm.apply(x, self.weight, self.eps)
        return _inverse_rms(x, self.eps).mul(x).mul_(self.weight)


@cache
def _scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor, which the fused operations want."""
    # Made outside inference mode, because training may use it later.
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 over the root of the mean square [..., 1]: three operations, where PyTorch's kernel is made of seven."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(_scalar(eps, x.dtype), norm, norm, value=1 / x.shape[-1]).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, scale)
        return scale.mul(x).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        dim = x.shape[-1]
        # A layer norm of mean 0, whose backward pass is one kernel; only the share of the mean is to be undone.
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [dim], torch.zeros_like(scale), scale, weight, None, [True, True, False]
        )
        return of_x.add_(scale * (grad @ weight)[..., None] / dim), of_weight, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE (arXiv:2104.09864) in the halves convention of Llama.

    :param x: [..., D_head].
    :param cos: [..., D_head / 2] of the angles of the positions; ``sin`` likewise. Or both as ``whole_turn`` has them.
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    if cos.shape[-1] == x.shape[-1]:
        return torch.mul(x, cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)
    if _trains_on_cpu(x):
        return _Rotate.apply(x, cos, sin)
    return _turn(x, cos, sin) if x.device.type == "cpu" else _turn_out(x, cos, sin)


def whole_turn(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The angles of ``rotate`` for both halves [..., D_head]: fewer operations for few steps, whose number counts."""
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # Four passes over halves, without intermediate copies.
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(a, cos, out=out[..., :half]).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=out[..., half:]).addcmul_(a, sin)
    return out


def _turn_out(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention; keys and values may have fewer heads (grouped queries).

    :param q: [B, H, S, D_head].
    :param k: [B, H_kv, T, D_head]; ``v`` likewise.
    :param mask: what each query may see, [B or 1, 1, S, T]; with ``causal`` none.
    :param causal: query s sees keys 0 .. s; then S is T.
    """
    grouped = k.shape[1] != q.shape[1]
    if causal and not dropout and q.dtype == torch.bfloat16 and _trains_on_cpu(q, k, v):
        if grouped:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        return _CausalAttention.apply(q, k, v)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout, enable_gqa=grouped
    )


class _CausalAttention(torch.autograd.Function):
    """Attention in blocks of queries, each with the keys before its end.

    In bfloat16 on a CPU twice as fast, forward and backward, as the kernel of PyTorch, whose matrix products
    are too small for the bfloat16 units. It keeps the attention weights, half of H x S x S numbers.
    """

    block = 64

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        block, steps, kept = _CausalAttention.block, q.shape[2], []
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        made = out.flatten(0, 1)
        q, k, v = (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        future = torch.full((block, block), -torch.inf, dtype=q.dtype).triu(1)
        for start in range(0, steps, block):
            stop = min(start + block, steps)
            scores = torch.bmm(q[:, start:stop], k[:, :stop].transpose(1, 2))
            scores[:, :, start:] += future[: stop - start, : stop - start]
            kept.append(scores.softmax(dim=-1))
            made[:, start:stop] = torch.bmm(kept[-1], v[:, :stop])
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *kept = ctx.saved_tensors
        shape, grad = grad.shape, grad.flatten(0, 1)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        start = 0
        for weights in kept:
            stop = weights.shape[2]
            g = grad[:, start:stop]
            of_v[:, :stop].baddbmm_(weights.transpose(1, 2), g)
            of_weights = torch.bmm(g, v[:, :stop].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_q[:, start:stop] = torch.bmm(of_scores, k[:, :stop])
            of_k[:, :stop].baddbmm_(of_scores.transpose(1, 2), q[:, start:stop])
            start = stop
        of_q *= shape[-1] ** -0.5
        return of_q.view(shape), of_k.view(shape), of_v.view(shape)
