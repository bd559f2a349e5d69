// Cuts attention into (sequence, head) tasks, gives each worker its scratch, and adds the heads' gradients of shared
// keys.
#include "kernels/cpu/attention.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/attention_head.h"
#include "kernels/cpu/gemm.h"
#include "kernels/limits.h"

namespace shoestring {

AttentionBuffers CarveAttention(const AttentionHead& head, const GemmKernels& gemm, bool backward,
                                AttentionScratch& scratch) {
  const int64_t length = (head.length + 31) / 32 * 32;
  const auto wide = [](int64_t columns) { return (columns + 31) / 32 * 32; };
  const int64_t tile = 16 * kGemmRowStride, panels = kAttentionQueries * (kAttentionKeys + 32);
  const auto tiles = [&](int64_t rows) { return (rows / gemm.rows + 1) * kAttentionQueries * 16; };
  AttentionBuffers b = {};
  // Room for one dword an element, whatever the level packs; + 2: nope and rope are padded to whole dwords.
  b.key_panels = scratch.Take(length * (head.nope + head.rope + 2));
  b.query_tile = scratch.Take(tile);
  b.scores = scratch.Take(tile);
  if (!backward) {
    b.value_panels = scratch.Take(length * wide(head.value));
    b.weights = scratch.Take(tile);
    b.output_ld = wide(head.value);
    b.output = scratch.Take(16 * b.output_ld);
    return b;
  }
  b.value_columns = scratch.Take(length * (head.value + 1));
  b.nope_panels = scratch.Take(length * wide(head.nope));
  b.rope_panels = scratch.Take(length * wide(head.rope));
  b.d_out_tile = scratch.Take(tile);
  b.d_weights = scratch.Take(tile);
  b.d_scores = scratch.Take(tile);
  b.weight_panels = scratch.Take(panels);
  b.d_score_panels = scratch.Take(panels);
  b.nope_tiles = scratch.Take(tiles(head.nope));
  b.rope_tiles = scratch.Take(tiles(head.rope));
  b.d_out_tiles = scratch.Take(tiles(head.value));
  b.d_q_ld = head.nope + head.rope;
  b.d_q_partial = scratch.Take(kAttentionQueries * b.d_q_ld);
  b.key_ld = length + 16;  // not a power of two: the rows of a transposed tile fall into different cache sets
  b.d_key = scratch.Take((head.nope + head.rope) * b.key_ld);
  b.d_value = scratch.Take(head.value * b.key_ld);
  b.delta = scratch.Take(length);
  return b;
}

namespace {

// (sequence, head) tasks between two sums over heads: enough to keep the threads busy, few enough to bound the
// workspace.
constexpr int64_t kTasksInWave = 64;

const LevelAttention& AttentionOf(Isa isa) {
  switch (isa) {
    case Isa::kPortable: return PortableAttention();
    case Isa::kAvx2: return Avx2Attention();
    case Isa::kAvx512: return Avx512Attention();
    case Isa::kAvx512Bf16: return Avx512Bf16Attention();
  }
  CHECK(false);
  return PortableAttention();
}

int64_t SequencesInWave(const AttentionShape& shape) {
  const int64_t sequences = shape.tokens / shape.sequence_length;
  return std::clamp<int64_t>((kTasksInWave + shape.heads - 1) / shape.heads, 1, std::max<int64_t>(1, sequences));
}

AttentionHead Dimensions(const AttentionShape& shape) {
  AttentionHead head;
  head.length = shape.sequence_length;
  head.nope = shape.nope_dim;
  head.rope = shape.rope_dim;
  head.value = shape.value_dim;
  return head;
}

int64_t FloatsOfWorker(const AttentionShape& shape, const GemmKernels& gemm, bool backward) {
  AttentionScratch count(nullptr);
  CarveAttention(Dimensions(shape), gemm, backward, count);
  return count.used();
}

void CheckShape(const AttentionShape& shape) {
  CHECK_GT(shape.sequence_length, 0);
  CHECK_EQ(shape.tokens % shape.sequence_length, 0);
  static_assert(kMaxHeadDim <= kGemmBlockDwords);
  CHECK_LE(shape.nope_dim + shape.rope_dim, kMaxHeadDim);
  CHECK_LE(shape.value_dim, kMaxHeadDim);
}

const void* At(const void* p, DType dtype, int64_t elements) {
  return static_cast<const char*>(p) + elements * SizeOf(dtype);
}
void* At(void* p, DType dtype, int64_t elements) { return static_cast<char*>(p) + elements * SizeOf(dtype); }

AttentionHead HeadOf(const CpuAttentionCall& call, int64_t sequence, int64_t head) {
  const AttentionShape& shape = call.shape;
  const int64_t token = sequence * shape.sequence_length;
  AttentionHead h = Dimensions(shape);
  h.scale = call.scale;
  h.q = At(call.q, call.dtype, token * call.q_ld + head * (h.nope + h.rope));
  h.q_ld = call.q_ld;
  h.kv = At(call.kv, call.dtype, token * call.kv_ld + head * (h.nope + h.value));
  h.kv_ld = call.kv_ld;
  h.k_rope = At(call.k_rope, call.dtype, token * call.k_rope_ld);
  h.k_rope_ld = call.k_rope_ld;
  h.first_visible = call.first_visible == nullptr ? nullptr : call.first_visible + token;
  h.out = At(call.out, call.dtype, token * call.out_ld + head * h.value);
  h.out_ld = call.out_ld;
  h.lse = call.lse + token * call.lse_ld + head;
  h.lse_ld = call.lse_ld;
  return h;
}

void SetGradients(const CpuAttentionCall& call, const CpuAttentionGradients& grads, int64_t sequence, int64_t head,
                  AttentionHead& h) {
  const int64_t token = sequence * call.shape.sequence_length;
  h.d_out = At(grads.d_out, call.dtype, token * grads.d_out_ld + head * h.value);
  h.d_out_ld = grads.d_out_ld;
  h.d_q = At(grads.d_q, call.dtype, token * grads.d_q_ld + head * (h.nope + h.rope));
  h.d_q_ld = grads.d_q_ld;
  h.d_kv = At(grads.d_kv, call.dtype, token * grads.d_kv_ld + head * (h.nope + h.value));
  h.d_kv_ld = grads.d_kv_ld;
}

// d_k_rope of tokens [begin, end) of a wave: shares [sequence of the wave, head, position, rope] added in head order.
void SumHeads(const CpuAttentionCall& call, const CpuAttentionGradients& grads, int64_t first_token,
              const float* shares, int64_t begin, int64_t end) {
  const AttentionShape& s = call.shape;
  const int64_t head_floats = s.sequence_length * s.rope_dim;
  for (int64_t t = begin; t < end; ++t) {
    const float* share = shares + t / s.sequence_length * s.heads * head_floats + t % s.sequence_length * s.rope_dim;
    void* row = At(grads.d_k_rope, call.dtype, (first_token + t) * grads.d_k_rope_ld);
    for (int64_t j = 0; j < s.rope_dim; ++j) {
      float sum = 0;
      for (int64_t head = 0; head < s.heads; ++head) sum += share[head * head_floats + j];
      if (call.dtype == DType::kF32) {
        static_cast<float*>(row)[j] = sum;
      } else {
        static_cast<BF16*>(row)[j] = BF16(sum);
      }
    }
  }
}

}  // namespace

int64_t CpuAttentionWorkspaceBytes(const AttentionShape& shape, Isa isa, int threads, bool backward) {
  CheckShape(shape);
  int64_t floats = threads * FloatsOfWorker(shape, KernelsOf(isa).f32, backward);
  if (backward) floats += SequencesInWave(shape) * shape.heads * shape.sequence_length * shape.rope_dim;
  return floats * static_cast<int64_t>(sizeof(float));
}

void CpuAttentionForward(ThreadPool& pool, Isa isa, const CpuAttentionCall& call, void* workspace) {
  CheckShape(call.shape);
  CHECK_GT(call.scale, 0.0f);
  const bool f32 = call.dtype == DType::kF32;
  const GemmKernels& gemm = f32 ? KernelsOf(isa).f32 : KernelsOf(isa).bf16;
  const AttentionKernels& kernels = f32 ? AttentionOf(isa).f32 : AttentionOf(isa).bf16;
  const int64_t worker_floats = FloatsOfWorker(call.shape, gemm, /*backward=*/false);
  const int64_t heads = call.shape.heads;
  pool.ParallelFor(call.shape.tokens / call.shape.sequence_length * heads, [&](int64_t task, int worker) {
    const AttentionHead head = HeadOf(call, task / heads, task % heads);
    AttentionScratch scratch(static_cast<float*>(workspace) + worker * worker_floats);
    kernels.forward(gemm, head, CarveAttention(head, gemm, /*backward=*/false, scratch));
  });
}

void CpuAttentionBackward(ThreadPool& pool, Isa isa, const CpuAttentionCall& call, const CpuAttentionGradients& grads,
                          void* workspace) {
  CheckShape(call.shape);
  const AttentionShape& shape = call.shape;
  const bool f32 = call.dtype == DType::kF32;
  const GemmKernels& gemm = f32 ? KernelsOf(isa).f32 : KernelsOf(isa).bf16;
  const AttentionKernels& kernels = f32 ? AttentionOf(isa).f32 : AttentionOf(isa).bf16;
  const int64_t worker_floats = FloatsOfWorker(shape, gemm, /*backward=*/true);
  float* shares = static_cast<float*>(workspace);
  float* scratches = shares + SequencesInWave(shape) * shape.heads * shape.sequence_length * shape.rope_dim;
  const int64_t sequences = shape.tokens / shape.sequence_length, wave = SequencesInWave(shape);
  for (int64_t first = 0; first < sequences; first += wave) {
    const int64_t count = std::min(wave, sequences - first);
    pool.ParallelFor(count * shape.heads, [&](int64_t task, int worker) {
      const int64_t sequence = first + task / shape.heads, which = task % shape.heads;
      AttentionHead head = HeadOf(call, sequence, which);
      SetGradients(call, grads, sequence, which, head);
      head.d_k_rope = shares + task * shape.sequence_length * shape.rope_dim;
      AttentionScratch scratch(scratches + worker * worker_floats);
      kernels.backward(gemm, head, CarveAttention(head, gemm, /*backward=*/true, scratch));
    });
    pool.ParallelRanges(count * shape.sequence_length, 16, [&](int64_t begin, int64_t end, int) {
      SumHeads(call, grads, first * shape.sequence_length, shares, begin, end);
    });
  }
}

}  // namespace shoestring
