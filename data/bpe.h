// Byte pair encoding of one pre-token: the merge table, the merging, and a cache of words already merged.
//
// Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016, over bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace shoestring {

struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t product = 0;
};

// Immutable after construction; Encode is thread-safe, each thread with its own scratch.
class BpeMerger {
 public:
  // Memory that Encode reuses; one thread at a time.
  class Scratch;

  // `byte_ids[b]` is the token of byte b; merges come in order of precedence, ids are >= 0, pairs differ.
  BpeMerger(const std::array<int32_t, 256>& byte_ids, absl::Span<const BpeMerge> merges);

  // Appends the ids of `word` to `out`: starting from its bytes, the pair with the first merge is merged, leftmost
  // first, until none is left. O(n log n) for n bytes.
  void Encode(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const;

 private:
  struct Entry {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t product = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  static uint64_t Pack(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  // The pair's merge; rank INT32_MAX if it has none.
  Entry Find(int32_t left, int32_t right) const;
  void EncodeShort(absl::string_view word, std::vector<int32_t>* out) const;
  void EncodeLong(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const;

  std::array<int32_t, 256> byte_ids_;
  // Open addressing, a power of two of slots, at most half of them full.
  std::vector<Entry> table_;
  int shift_ = 0;
};

class BpeMerger::Scratch {
 private:
  friend class BpeMerger;
  struct Symbol {
    int32_t id;
    int32_t previous;  // index, or -1
    int32_t next;      // index, or -1
  };
  struct Candidate {
    int32_t rank;
    int32_t position;
    int32_t product;
    // Order of a heap whose front is the smallest (rank, position).
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  void Push(const BpeMerger& merger, int32_t position);

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

// Ids of words seen lately. Bounded: when full it forgets everything. Not thread-safe.
class BpeWordCache {
 public:
  // Remembers at most `capacity` words.
  explicit BpeWordCache(size_t capacity) : capacity_(capacity) {}

  // Appends the ids of `word` to `out` and returns true, if it is known.
  bool Append(absl::string_view word, std::vector<int32_t>* out) const;
  // `word` must not be known yet.
  void Insert(absl::string_view word, absl::Span<const int32_t> ids);

  size_t size() const { return words_.size(); }

 private:
  struct Range {
    uint32_t begin;
    uint32_t size;
  };
  size_t capacity_;
  absl::flat_hash_map<std::string, Range> words_;
  std::vector<int32_t> ids_;
};

}  // namespace shoestring
