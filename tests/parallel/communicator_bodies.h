// What tests of communicators share: a body under test, and matrices whose bytes say who made them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"

namespace shoestring {

// One body under test. `run` calls fn once for each member of a group of `size`, named "all", each with its own
// communicator and backend, at the same time where size > 1, and returns when all have; a member's communicator is
// destroyed when its fn returns. `make_meeting` makes a function that returns when each member has called it, again and
// again; the failure suite needs it.
struct CommunicatorBody {
  std::string name;
  int size = 1;
  std::function<void(const std::function<void(Communicator&, Backend&)>& fn)> run;
  std::function<std::function<void()>()> make_meeting = {};
  bool sends_wait_for_nobody = true;  // also outside of groups
};

inline void PrintTo(const CommunicatorBody& body, std::ostream* out) { *out << body.name << body.size; }

CommunicatorBody SingleBody();
CommunicatorBody ThreadBody(int size);
// Of threads, each with a device of its own.
CommunicatorBody StagedBody(int size);

// Random numbers one after the other, the same for the same seed.
class Dice {
 public:
  Dice(uint64_t seed, uint64_t stream) : rng_(seed, RngPurpose::kTest, stream) {}
  int64_t Below(int64_t bound) { return static_cast<int64_t>(rng_.Below(index_++, static_cast<uint64_t>(bound))); }

 private:
  Rng rng_;
  uint64_t index_ = 0;
};

constexpr DType kAllDTypes[] = {DType::kF32, DType::kBF16, DType::kE4M3, DType::kE5M2, DType::kE5M6,
                                DType::kI32, DType::kI64,  DType::kF64,  DType::kU8};
constexpr DType kSummable[] = {DType::kF32, DType::kF64, DType::kI64};

// Host memory of a matrix of any type. `padding`: elements between the end of a row and the next; they, and all
// elements that nobody writes, keep the byte 0xEE.
class TestMatrix {
 public:
  TestMatrix(DType dtype, int64_t rows, int64_t cols, int64_t padding = 0);

  View view() { return {bytes_.data(), dtype_, rows_, cols_, cols_ + padding_}; }
  ConstView view() const { return {bytes_.data(), dtype_, rows_, cols_, cols_ + padding_}; }
  // Bytes that depend on (tag, row, place).
  void Fill(uint64_t tag);
  // Whole numbers that depend on (tag, row, column); of a summable type. Sums of a thousand are exact.
  void FillNumbers(uint64_t tag);

  // Rows [first, first + count) are rows [source, source + count) of a matrix that was filled with `tag`.
  testing::AssertionResult HasRows(int64_t first, int64_t count, uint64_t tag, int64_t source) const;
  // Every row r is the sum of rows first_source + r of matrices filled with numbers of `tags`.
  testing::AssertionResult HasSums(const std::vector<uint64_t>& tags, int64_t first_source) const;
  // Padding is as it was.
  testing::AssertionResult PaddingUntouched() const;
  testing::AssertionResult Untouched() const;

 private:
  double NumberAt(int64_t row, int64_t col) const;

  DType dtype_;
  int64_t rows_, cols_, padding_;
  std::vector<std::byte> bytes_;
};

}  // namespace shoestring
