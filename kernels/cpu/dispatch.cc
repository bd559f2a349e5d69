// Moving tokens to their experts and back on the CPU.
#include <cstring>

#include "kernels/cpu/cpu_operations.h"

namespace shoestring {

int64_t ExistingRows(const ConstView& offsets, int64_t all) {
  if (!offsets) return all;
  const int64_t rows = offsets.as<int32_t>()[offsets.cols - 1];
  CHECK_GE(rows, 0);
  CHECK_LE(rows, all);
  return rows;
}

// A counting sort; stable, hence by token inside an expert.
void CpuPlanDispatch(const PlanDispatchArgs& args) {
  const int64_t tokens = args.experts.rows;
  const int64_t chosen = args.experts.cols;
  int32_t* offsets = args.offsets.as<int32_t>();
  std::fill_n(offsets, args.expert_count + 1, 0);
  for (int64_t token = 0; token < tokens; ++token) {
    const int32_t* experts = args.experts.as<int32_t>(token);
    for (int64_t k = 0; k < chosen; ++k) {
      CHECK_GE(experts[k], 0);
      CHECK_LT(experts[k], args.expert_count);
      ++offsets[experts[k] + 1];
    }
  }
  for (int64_t e = 0; e < args.expert_count; ++e) offsets[e + 1] += offsets[e];
  // While rows are dealt out, offsets[e] is the next free row of expert e; it ends as the start of e + 1.
  int32_t* row_token = args.row_token.as<int32_t>();
  int32_t* row_slot = args.row_slot.as<int32_t>();
  for (int64_t token = 0; token < tokens; ++token) {
    const int32_t* experts = args.experts.as<int32_t>(token);
    int32_t* slot_row = args.slot_row.as<int32_t>(token);
    for (int64_t k = 0; k < chosen; ++k) {
      const int32_t row = offsets[experts[k]]++;
      row_token[row] = static_cast<int32_t>(token);
      row_slot[row] = static_cast<int32_t>(token * chosen + k);
      slot_row[k] = row;
    }
  }
  std::memmove(offsets + 1, offsets, args.expert_count * sizeof(int32_t));
  offsets[0] = 0;
}

void CpuGatherRows(const CpuContext& cpu, const Operand& x, ConstView row_token, ConstView offsets,
                   const MutableOperand& y) {
  const int32_t* tokens = row_token.as<int32_t>();
  const auto copy = [](const ConstView& from, int64_t token, const View& to, int64_t row) {
    std::memcpy(to.row_bytes(row), from.row_bytes(token), from.cols * SizeOf(from.dtype));
  };
  ForRowRanges(cpu, ExistingRows(offsets, row_token.cols), x.values.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      CHECK_GE(tokens[row], 0);
      CHECK_LT(tokens[row], x.values.rows);
      copy(x.values, tokens[row], y.values, row);
      if (x.quantised()) copy(x.scales, tokens[row], y.scales, row);
    }
  });
}

void CpuGatherChosen(ConstView chosen_values, ConstView row_slot, ConstView offsets, View row_values) {
  const int32_t* slots = row_slot.as<int32_t>();
  const float* from = chosen_values.as<float>();
  float* to = row_values.as<float>();
  const int64_t rows = ExistingRows(offsets, row_slot.cols);
  for (int64_t row = 0; row < rows; ++row) {
    CHECK_GE(slots[row], 0);
    CHECK_LT(slots[row], chosen_values.elements());
    to[row] = from[slots[row]];
  }
}

void CpuScatterChosen(ConstView row_values, ConstView slot_row, View chosen_values) {
  const float* from = row_values.as<float>();
  for (int64_t token = 0; token < slot_row.rows; ++token) {
    const int32_t* rows = slot_row.as<int32_t>(token);
    float* to = chosen_values.as<float>(token);
    for (int64_t k = 0; k < slot_row.cols; ++k) {
      CHECK_GE(rows[k], 0);
      CHECK_LT(rows[k], row_values.cols);
      to[k] = from[rows[k]];
    }
  }
}

void CpuCombineRows(const CpuContext& cpu, const CombineArgs& args, View out) {
  CHECK_LE(args.slot_row.cols, kMaxChosenExperts);
  for (int64_t token = 0; token < args.slot_row.rows; ++token) {
    const int32_t* rows = args.slot_row.as<int32_t>(token);
    for (int64_t k = 0; k < args.slot_row.cols; ++k) {
      CHECK_GE(rows[k], -1);
      CHECK_LT(rows[k], args.y.rows);
    }
  }
  const CombineLoop loop = {.y = RowsOf(args.y),
                            .slot_row = args.slot_row.as<int32_t>(),
                            .slot_row_stride = args.slot_row.stride,
                            .experts = args.experts.as<int32_t>(),
                            .experts_stride = args.experts.stride,
                            .chosen = args.slot_row.cols,
                            .experts_per_group = args.experts_per_group,
                            .base = RowsOf(args.base),
                            .out = RowsOf(out),
                            .cols = args.y.cols};
  ForRowRanges(cpu, args.slot_row.rows, args.y.cols * std::max<int64_t>(1, args.slot_row.cols),
               [&](int64_t begin, int64_t end) { cpu.ops.combine(loop, begin, end); });
}

}  // namespace shoestring
