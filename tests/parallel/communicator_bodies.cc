// The bodies, and what a matrix should hold.
#include "tests/parallel/communicator_bodies.h"

#include <barrier>
#include <thread>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "parallel/single_communicator.h"
#include "parallel/staged_communicator.h"
#include "parallel/thread_communicator.h"

namespace shoestring {
namespace {

constexpr std::byte kUntouched{0xEE};

std::byte ByteOf(uint64_t tag, int64_t row, int64_t place) {
  uint64_t x =
      tag * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(row) * 0xC2B2AE3D27D4EB4Fu + static_cast<uint64_t>(place);
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9u;
  return static_cast<std::byte>(x >> 40);
}

double NumberOf(uint64_t tag, int64_t row, int64_t col) {
  return static_cast<double>(static_cast<int>(ByteOf(tag, row, col)) - 100);
}

// `over`: what a member makes of the communicator of its thread.
CommunicatorBody BodyOfThreads(
    const std::string& name, int size,
    const std::function<std::unique_ptr<Communicator>(std::unique_ptr<Communicator>, Backend&)>& over) {
  const auto run = [size, over](const std::function<void(Communicator&, Backend&)>& fn) {
    ThreadWorld world(size);
    RankGroup group{"all", {}};
    for (int i = 0; i < size; ++i) group.members.push_back(Rank(i));
    std::vector<std::unique_ptr<Communicator>> communicators = world.MakeGroup(group);
    std::vector<std::thread> ranks;
    for (int i = 0; i < size; ++i) {
      ranks.emplace_back([&, mine = std::move(communicators[i])]() mutable {
        const std::unique_ptr<Backend> backend = MakeCpuBackend({});
        const std::unique_ptr<Communicator> communicator = over(std::move(mine), *backend);
        fn(*communicator, *backend);
      });
    }
    for (std::thread& rank : ranks) rank.join();
  };
  const auto make_meeting = [size]() -> std::function<void()> {
    return [barrier = std::make_shared<std::barrier<>>(size)] { barrier->arrive_and_wait(); };
  };
  return {name, size, run, make_meeting};
}

}  // namespace

CommunicatorBody SingleBody() {
  return {"single", 1,
          [](const std::function<void(Communicator&, Backend&)>& fn) {
            const std::unique_ptr<Backend> backend = MakeCpuBackend({});
            const std::unique_ptr<Communicator> communicator = MakeSingleCommunicator(*backend);
            fn(*communicator, *backend);
          },
          [] { return [] {}; }};
}

CommunicatorBody ThreadBody(int size) {
  return BodyOfThreads("thread", size, [](std::unique_ptr<Communicator> mine, Backend&) { return mine; });
}

CommunicatorBody StagedBody(int size) { return BodyOfThreads("staged", size, MakeStagedCommunicator); }

TestMatrix::TestMatrix(DType dtype, int64_t rows, int64_t cols, int64_t padding)
    : dtype_(dtype),
      rows_(rows),
      cols_(cols),
      padding_(padding),
      bytes_(BytesOf(dtype, rows * (cols + padding)), kUntouched) {}

void TestMatrix::Fill(uint64_t tag) {
  const View x = view();
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t k = 0; k < BytesOf(dtype_, cols_); ++k) x.row_bytes(row)[k] = ByteOf(tag, row, k);
  }
}

void TestMatrix::FillNumbers(uint64_t tag) {
  const View x = view();
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t col = 0; col < cols_; ++col) {
      const double number = NumberOf(tag, row, col);
      switch (dtype_) {
        case DType::kF32: x.as<float>(row)[col] = static_cast<float>(number); break;
        case DType::kF64: x.as<double>(row)[col] = number; break;
        default: x.as<int64_t>(row)[col] = static_cast<int64_t>(number);
      }
    }
  }
}

double TestMatrix::NumberAt(int64_t row, int64_t col) const {
  const ConstView x = view();
  switch (dtype_) {
    case DType::kF32: return x.as<float>(row)[col];
    case DType::kF64: return x.as<double>(row)[col];
    default: return static_cast<double>(x.as<int64_t>(row)[col]);
  }
}

testing::AssertionResult TestMatrix::HasRows(int64_t first, int64_t count, uint64_t tag, int64_t source) const {
  const ConstView x = view();
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t k = 0; k < BytesOf(dtype_, cols_); ++k) {
      if (x.row_bytes(first + row)[k] != ByteOf(tag, source + row, k)) {
        return testing::AssertionFailure()
               << "row " << first + row << ", byte " << k << " of " << Name(dtype_) << " is "
               << static_cast<int>(x.row_bytes(first + row)[k]) << ", not row " << source + row << " of tag " << tag;
      }
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult TestMatrix::HasSums(const std::vector<uint64_t>& tags, int64_t first_source) const {
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t col = 0; col < cols_; ++col) {
      double sum = 0;
      for (const uint64_t tag : tags) sum += NumberOf(tag, first_source + row, col);
      if (NumberAt(row, col) != sum) {
        return testing::AssertionFailure() << "element (" << row << ", " << col << ") of " << Name(dtype_) << " is "
                                           << NumberAt(row, col) << ", not " << sum;
      }
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult TestMatrix::PaddingUntouched() const {
  const ConstView x = view();
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t k = BytesOf(dtype_, cols_); k < BytesOf(dtype_, cols_ + padding_); ++k) {
      if (x.row_bytes(row)[k] != kUntouched) return testing::AssertionFailure() << "padding of row " << row;
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult TestMatrix::Untouched() const {
  for (size_t i = 0; i < bytes_.size(); ++i) {
    if (bytes_[i] != kUntouched) return testing::AssertionFailure() << "byte " << i << " was written";
  }
  return testing::AssertionSuccess();
}

}  // namespace shoestring
