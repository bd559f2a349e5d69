// Byte pair merging: by scanning for short words, with a heap for long ones.
#include "data/bpe.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace shoestring {
namespace {

constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
constexpr size_t kShortWord = 48;  // bytes; scanning beats a heap below this

uint64_t Mix(uint64_t pair) { return pair * 0x9E3779B97F4A7C15u; }

}  // namespace

BpeMerger::BpeMerger(const std::array<int32_t, 256>& byte_ids, absl::Span<const BpeMerge> merges)
    : byte_ids_(byte_ids) {
  int log2_slots = 8;
  while ((size_t{1} << log2_slots) < 2 * merges.size()) ++log2_slots;
  table_.resize(size_t{1} << log2_slots);
  shift_ = 64 - log2_slots;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = Pack(merges[rank].left, merges[rank].right);
    size_t slot = Mix(pair) >> shift_;
    for (; table_[slot].pair != kNoPair; slot = (slot + 1) & (table_.size() - 1)) CHECK_NE(table_[slot].pair, pair);
    table_[slot] = {pair, static_cast<int32_t>(rank), merges[rank].product};
  }
}

BpeMerger::Entry BpeMerger::Find(int32_t left, int32_t right) const {
  const uint64_t pair = Pack(left, right);
  for (size_t slot = Mix(pair) >> shift_;; slot = (slot + 1) & (table_.size() - 1)) {
    const Entry& entry = table_[slot];
    if (entry.pair == pair) return entry;
    if (entry.pair == kNoPair) return {kNoPair, kNoRank, -1};
  }
}

void BpeMerger::Encode(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const {
  if (word.size() <= kShortWord) {
    EncodeShort(word, out);
  } else {
    EncodeLong(word, scratch, out);
  }
}

void BpeMerger::EncodeShort(absl::string_view word, std::vector<int32_t>* out) const {
  std::array<int32_t, kShortWord> ids;
  std::array<Entry, kShortWord> merges;  // merges[i] joins ids[i] and ids[i + 1]
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = Find(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    ids[best] = merges[best].product;
    std::copy(ids.begin() + best + 2, ids.begin() + count, ids.begin() + best + 1);
    std::copy(merges.begin() + best + 1, merges.begin() + count - 1, merges.begin() + best);
    --count;
    if (best > 0) merges[best - 1] = Find(ids[best - 1], ids[best]);
    if (best + 1 < count) merges[best] = Find(ids[best], ids[best + 1]);
  }
  out->insert(out->end(), ids.begin(), ids.begin() + count);
}

void BpeMerger::Scratch::Push(const BpeMerger& merger, int32_t position) {
  const int32_t next = symbols_[position].next;
  if (next < 0) return;
  const Entry entry = merger.Find(symbols_[position].id, symbols_[next].id);
  if (entry.rank == kNoRank) return;
  heap_.push_back({entry.rank, position, entry.product});
  std::push_heap(heap_.begin(), heap_.end());
}

void BpeMerger::EncodeLong(absl::string_view word, Scratch& scratch, std::vector<int32_t>* out) const {
  CHECK_LT(word.size(), static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  const int32_t size = static_cast<int32_t>(word.size());
  std::vector<Scratch::Symbol>& symbols = scratch.symbols_;
  symbols.resize(size);
  for (int32_t i = 0; i < size; ++i) {
    symbols[i] = {byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < size ? i + 1 : -1};
  }
  scratch.heap_.clear();
  for (int32_t i = 0; i + 1 < size; ++i) scratch.Push(*this, i);
  while (!scratch.heap_.empty()) {
    const Scratch::Candidate top = scratch.heap_.front();
    std::pop_heap(scratch.heap_.begin(), scratch.heap_.end());
    scratch.heap_.pop_back();
    Scratch::Symbol& symbol = symbols[top.position];
    // Stale: swallowed by its neighbour, at the end, or its pair has changed since.
    if (symbol.id < 0 || symbol.next < 0) continue;
    if (Find(symbol.id, symbols[symbol.next].id).rank != top.rank) continue;
    Scratch::Symbol& swallowed = symbols[symbol.next];
    symbol.id = top.product;
    symbol.next = swallowed.next;
    swallowed.id = -1;
    if (symbol.next >= 0) symbols[symbol.next].previous = top.position;
    if (symbol.previous >= 0) scratch.Push(*this, symbol.previous);
    scratch.Push(*this, top.position);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out->push_back(symbols[i].id);
}

bool BpeWordCache::Append(absl::string_view word, std::vector<int32_t>* out) const {
  const auto found = words_.find(word);
  if (found == words_.end()) return false;
  const int32_t* ids = ids_.data() + found->second.begin;
  out->insert(out->end(), ids, ids + found->second.size);
  return true;
}

void BpeWordCache::Insert(absl::string_view word, absl::Span<const int32_t> ids) {
  if (words_.size() >= capacity_) {
    words_.clear();
    ids_.clear();
  }
  words_.emplace(std::string(word), Range{static_cast<uint32_t>(ids_.size()), static_cast<uint32_t>(ids.size())});
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

}  // namespace shoestring
