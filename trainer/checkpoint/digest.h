// The two digests of checkpoints: SHA-256 for what must be the same, XXH3-128 for what must have arrived whole.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace shoestring {

inline constexpr size_t kSha256Bytes = 32;
inline constexpr size_t kBlockSumBytes = 16;

// SHA-256 of bytes that come in pieces. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);
  // 32 bytes; the object begins anew.
  std::string Finish();

  static std::string Of(absl::string_view bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// XXH3-128 in its canonical form, 16 bytes, big-endian.
std::string BlockSum(absl::string_view bytes);

// Sums of every `block_bytes` of a stream, one after the other; the last block may be shorter. Not thread-safe.
class BlockSummer {
 public:
  explicit BlockSummer(int64_t block_bytes);
  ~BlockSummer();
  BlockSummer(const BlockSummer&) = delete;
  BlockSummer& operator=(const BlockSummer&) = delete;

  void Update(absl::string_view bytes);
  // The sums back to back. Call once.
  std::string Finish();

 private:
  void EndBlock();

  struct State;
  std::unique_ptr<State> state_;
  const int64_t block_bytes_;
  int64_t in_block_ = 0;
  std::string sums_;
};

}  // namespace shoestring
