// What every layer is handed: the machine, the shapes and the tables, passed by hand instead of kept in globals.
#pragma once

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/model/rope_table.h"
#include "trainer/model/shape.h"

namespace shoestring {

// Lives for one action on one micro-batch.
struct LayerContext {
  Backend& backend;
  Stream& stream;
  Arena& scratch;  // layers open an ArenaScope on it
  const ModelShape& shape;
  const RecomputeOptions& recompute;
  const RopeTable& rope;
  double softmax_scale;
  ConstView positions;      // [1, T] i32
  ConstView first_visible;  // [1, T] i32, or empty

  View Scratch(const char* name, DType dtype, int64_t rows, int64_t cols) const {
    return scratch.Allocate(Purpose::kScratch, name, dtype, rows, cols);
  }
  // `kept` where forward kept the tensor; else room in the open scope for computing it again.
  View KeptOrScratch(View kept, const char* name, int64_t rows, int64_t cols) const {
    return kept ? kept : Scratch(name, shape.act, rows, cols);
  }
};

}  // namespace shoestring
