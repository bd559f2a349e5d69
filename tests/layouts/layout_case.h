// One layout of a recipe: its name and config; and, from docs/numerics.md alone, whether it is promised the bits of one
// rank or must be refused.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/schema/run.pb.h"

namespace shoestring {

// How wide the model is; its mechanisms stay.
enum class Widths {
  kRecipe,  // as the recipe says
  kMedium,  // the feed-forward layers of tiny_cpu a quarter as wide
  kSmall,   // both recipes a few dozen wide: a run takes tenths of a second
};

enum class Split {
  kEven,
  kZeros,     // every other stage has no layer
  kLopsided,  // the first stage has most of them, the last one none if there are three or more
};

struct LayoutCase {
  std::string recipe = "tiny_cpu";
  std::string mode = "BF16";  // FP32, BF16, FP8
  bool mtp = true;
  int lanes = 8;         // L
  int expert_lanes = 1;  // G

  int pipeline = 1;
  std::string schedule = "one_f_one_b";
  int data = 1;
  int experts = 1;   // ranks of an expert group
  int hop_node = 0;  // TWO_HOP with machines of so many ranks; 0: DIRECT
  bool zero1 = false;
  Split split = Split::kEven;
  bool recompute = false;

  int directions() const { return schedule == "dualpipe" ? 2 : 1; }
  int world() const { return pipeline * data; }
  int stages() const;
  // Lanes of an expert group that pass through its experts in one direction. Where it is a whole number, G = this is
  // the width of production: nothing is put together that did not come so.
  int group_lanes() const { return lanes / (data * directions()) * experts; }
  std::vector<int> LayersPerStage() const;

  std::string Name() const;          // tiny_cpu/BF16/mtp1/G1/P2.zb_v/D4/E2/zero1/even
  std::string NumericsName() const;  // what the bits depend on
};

constexpr int kWaves = 2;
constexpr int kValidationSequences = 5;

// The same numbers on one rank.
LayoutCase OneRank(const LayoutCase& c);

// What a layout shows in each dimension: "P4", "zb_v", "G production", ...
std::vector<std::string> Values(const LayoutCase& c);

// Field that a refusal must name; empty: the layout is promised the bits of one rank.
std::string RefusedField(const LayoutCase& c);

// From the recipe's file, in the case's mode; sequence length and validation are those of the matrix. Then Apply sets
// what else a case says.
config::RunConfig RecipeConfig(const LayoutCase& c, Widths widths);
void Apply(const LayoutCase& c, config::RunConfig& config);

// Every combination of what decides whether a layout is legal.
std::vector<LayoutCase> AllShapes();

// `count` legal layouts, drawn so that as many pairs of values of two dimensions as possible are met.
std::vector<LayoutCase> Draw(uint64_t seed, int count);

}  // namespace shoestring
