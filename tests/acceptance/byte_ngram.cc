// The baseline that a language model must beat: an interpolated 5-gram model of bytes, trained and scored on two files.
//
// Prints the bits per byte of the validation file under two interpolations, Witten-Bell and Kneser-Ney with one
// absolute discount an order (Chen and Goodman 1998, sections 2.5 and 2.7), and their minimum. The order-0 model is
// uniform over 256 bytes, so no byte has probability zero.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/file_system.h"

namespace {

constexpr int kOrder = 5;

struct Context {
  int64_t total = 0;     // occurrences (or continuations) of any byte after this context
  int32_t distinct = 0;  // different bytes seen after it
};

// Counts of one order: n-gram of n bytes -> count, context of n - 1 bytes -> totals.
struct OrderCounts {
  std::unordered_map<uint64_t, int64_t> grams;
  std::unordered_map<uint64_t, Context> contexts;
  int64_t once = 0;
  int64_t twice = 0;

  void FillContexts() {
    for (const auto& [gram, count] : grams) {
      Context& context = contexts[gram >> 8];
      context.total += count;
      ++context.distinct;
      once += count == 1;
      twice += count == 2;
    }
  }
  double Discount() const { return once == 0 ? 0.5 : static_cast<double>(once) / (once + 2.0 * twice); }
};

using Model = std::array<OrderCounts, kOrder + 1>;  // index: order

uint64_t Gram(const std::string& text, size_t end, int n) {
  uint64_t gram = 0;
  for (int i = n; i >= 1; --i) gram = (gram << 8) | static_cast<unsigned char>(text[end - i]);
  return gram;
}

Model CountAll(const std::string& text) {
  Model model;
  for (int n = 1; n <= kOrder; ++n) {
    model[n].grams.reserve(size_t{1} << (n < 4 ? 16 : 21));
    for (size_t end = n; end <= text.size(); ++end) ++model[n].grams[Gram(text, end, n)];
  }
  return model;
}

// Lower orders of a Kneser-Ney model count in how many different contexts a gram was seen.
Model Continuations(const Model& counts) {
  Model model;
  model[kOrder].grams = counts[kOrder].grams;
  for (int n = 1; n < kOrder; ++n) {
    const uint64_t mask = (uint64_t{1} << (8 * n)) - 1;
    for (const auto& [gram, count] : counts[n + 1].grams) ++model[n].grams[gram & mask];
  }
  return model;
}

template <typename Interpolate>
double BitsPerByte(const Model& model, const std::string& text, const Interpolate& interpolate) {
  double bits = 0;
  for (size_t end = 1; end <= text.size(); ++end) {
    double p = 1.0 / 256;
    for (int n = 1; n <= kOrder && n <= static_cast<int>(end); ++n) {
      const uint64_t gram = Gram(text, end, n);
      const auto context = model[n].contexts.find(gram >> 8);
      if (context == model[n].contexts.end()) break;
      const auto found = model[n].grams.find(gram);
      const double count = found == model[n].grams.end() ? 0 : static_cast<double>(found->second);
      p = interpolate(model[n], context->second, count, p);
    }
    bits -= std::log2(p);
  }
  return bits / static_cast<double>(text.size());
}

double WittenBell(const OrderCounts&, const Context& context, double count, double lower) {
  return (count + context.distinct * lower) / static_cast<double>(context.total + context.distinct);
}

double KneserNey(const OrderCounts& order, const Context& context, double count, double lower) {
  const double discount = order.Discount();
  const double kept = count > discount ? count - discount : 0;
  return (kept + discount * context.distinct * lower) / static_cast<double>(context.total);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: byte_ngram TRAIN_TEXT VALIDATION_TEXT\n");
    return 64;
  }
  const auto train = shoestring::ReadFile(shoestring::PosixFileSystem(), argv[1]);
  const auto validation = shoestring::ReadFile(shoestring::PosixFileSystem(), argv[2]);
  for (const auto* text : {&train, &validation}) {
    if (!text->ok() || (*text)->empty()) {
      std::fprintf(stderr, "byte_ngram: %s\n", text->ok() ? "empty file" : text->status().ToString().c_str());
      return 74;
    }
  }
  Model counts = CountAll(*train);
  Model continuations = Continuations(counts);
  for (Model* model : {&counts, &continuations}) {
    for (int n = 1; n <= kOrder; ++n) (*model)[n].FillContexts();
  }
  const double witten_bell = BitsPerByte(counts, *validation, WittenBell);
  const double kneser_ney = BitsPerByte(continuations, *validation, KneserNey);
  std::printf("witten_bell_bits_per_byte %.4f\nkneser_ney_bits_per_byte %.4f\nngram_bits_per_byte %.4f\n", witten_bell,
              kneser_ney, std::fmin(witten_bell, kneser_ney));
  return 0;
}
