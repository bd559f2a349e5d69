// The bodies of the memory-bound operations: each unpacks views, chooses the launch, enqueues kernels on the stream.
//
// Arguments have passed Backend's checks. What only values can tell (an id outside its table) is checked on the device,
// which then stops: the next call that hears of it ends the rank. kernels/cuda/<stem>.cu holds the bodies of one
// family.
#pragma once

#include <cstdint>

#include "kernels/cuda/cuda_context.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

void CudaZero(CudaStream& stream, const View& x);
void CudaCopy(CudaStream& stream, const ConstView& x, const View& y);
void CudaAdd(CudaStream& stream, const ConstView& a, const ConstView& b, const View& y);

void CudaQuantize(CudaStream& stream, const QuantizeArgs& args);
// Tiles of one row, of the rows below the last offset (all, without offsets).
void CudaQuantizeRows(CudaStream& stream, const ConstView& x, const MutableOperand& y, const ConstView& offsets);
void CudaDequantize(CudaStream& stream, const Operand& x, const View& y, int64_t stack, const ConstView& offsets);

void CudaRmsNorm(CudaStream& stream, const RmsNormArgs& args);
void CudaRmsNormBackwardInput(CudaStream& stream, const RmsNormBackwardInputArgs& args);
void CudaRmsNormBackwardWeight(CudaStream& stream, const RmsNormBackwardWeightArgs& args);
void CudaRope(CudaStream& stream, const RopeArgs& args);
void CudaSwiGlu(CudaStream& stream, const SwiGluArgs& args, const MutableOperand& y);
void CudaSwiGluBackward(CudaStream& stream, const SwiGluArgs& args, const ConstView& dy, const View& d_gate_up,
                        const View& d_row_weight);

void CudaGate(CudaStream& stream, const GateArgs& args, const GateResult& result);
void CudaGateBackward(CudaStream& stream, const GateArgs& args, const GateBackwardArgs& grads);
void CudaSequenceBalance(CudaStream& stream, const SequenceBalanceArgs& args);

void CudaPlanDispatch(CudaStream& stream, const PlanDispatchArgs& args);
void CudaGatherRows(CudaStream& stream, const Operand& x, const ConstView& row_token, const ConstView& offsets,
                    const MutableOperand& y);
void CudaGatherChosen(CudaStream& stream, const ConstView& chosen_values, const ConstView& row_slot,
                      const ConstView& offsets, const View& row_values);
void CudaScatterChosen(CudaStream& stream, const ConstView& row_values, const ConstView& slot_row,
                       const View& chosen_values);
void CudaCombineRows(CudaStream& stream, const CombineArgs& args, const View& out);

void CudaEmbedding(CudaStream& stream, const ConstView& ids, const ConstView& table, const View& x);
void CudaEmbeddingBackward(CudaStream& stream, const ConstView& ids, const ConstView& dx, const View& d_table);
void CudaCrossEntropy(CudaStream& stream, const CrossEntropyArgs& args);
void CudaSumRows(CudaStream& stream, const ConstView& x, const View& sum);
// sums[i] = pieces[i * per_sum] + ..., in order, of `count` pieces in all.
void CudaAddPieces(CudaStream& stream, const double* pieces, int64_t count, int64_t per_sum, double* sums,
                   int64_t sum_count);

void CudaSquaredNorm(CudaStream& stream, const ConstView& x, const View& block_sums);
void CudaAdamW(CudaStream& stream, const AdamWArgs& args);
void CudaEma(CudaStream& stream, const ConstView& weights, double decay, const View& ema);

}  // namespace shoestring
