// Trains many layouts and compares each with one rank, to the bit; counts what each rank did; and sees that what is
// promised no bits is refused. docs/layouts.md.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/validate.h"
#include "tests/layouts/expected.h"
#include "tests/layouts/layout_case.h"
#include "tests/layouts/layout_run.h"
#include "trainer/support.h"

namespace shoestring {
namespace {

struct Options {
  bool list = false;
  bool fail_fast = false;
  std::string only;
  uint64_t seed = 1;
  int count = 160;
  int steps = 5;
  Widths widths = Widths::kMedium;
  int shapes_step = 1;  // every so manieth combination is validated
};

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// What differs between two runs, the first few of it.
std::vector<std::string> Compare(const LayoutResult& one, const LayoutResult& many) {
  std::vector<std::string> found;
  if (many.losses != one.losses) found.push_back("losses");
  if (many.grad_norm != one.grad_norm) found.push_back("gradient norm");
  if (many.validation != one.validation) found.push_back("validation");
  if (many.tensors.size() != one.tensors.size()) found.push_back("number of tensors");
  for (const auto& [name, sha] : one.tensors) {
    const auto other = many.tensors.find(name);
    if (other == many.tensors.end() || other->second != sha) found.push_back(name);
  }
  return found;
}

class Matrix {
 public:
  explicit Matrix(const Options& options) : options_(options) {}

  // 0: all is well; 1: something is not.
  int Run() {
    for (const LayoutCase& c : Draw(options_.seed, options_.count)) {
      if (!absl::StrContains(c.Name(), options_.only)) continue;
      if (options_.list) {
        std::printf("%s\n", c.Name().c_str());
      } else {
        RunCase(c);
        if (options_.fail_fast && failed_ > 0) return 1;
      }
    }
    if (options_.list) return 0;
    if (options_.only.empty()) ValidateShapes();
    PrintTable();
    std::printf("layouts: %d of %d equal one rank (%zu references), %d legal and %d refused as promised: %s\n", equal_,
                ran_, references_.size(), legal_, refused_, failed_ == 0 ? "passed" : "FAILED");
    return failed_ == 0 ? 0 : 1;
  }

 private:
  struct Tally {
    int ran = 0;
    int equal = 0;
  };

  config::RunConfig ConfigOf(const LayoutCase& c) const {
    config::RunConfig config = RecipeConfig(c, options_.widths);
    Apply(c, config);
    return config;
  }

  // A run, and what is wrong with its counters.
  absl::StatusOr<LayoutRun> RunChecked(const LayoutCase& c, std::vector<std::string>& found) const {
    const config::RunConfig config = ConfigOf(c);
    RETURN_IF_ERROR(config::Validate(config));
    RETURN_IF_ERROR(CheckSupported(config));
    ASSIGN_OR_RETURN(LayoutRun run, RunLayout(config, options_.steps));
    found = FindDifferences(LayoutBooks(config), run);
    return run;
  }

  // Of one rank; made once for each numerics.
  const LayoutResult* Reference(const LayoutCase& c, std::vector<std::string>& found) {
    const auto [it, fresh] = references_.try_emplace(c.NumericsName());
    if (fresh) {
      std::vector<std::string> of_one;
      absl::StatusOr<LayoutRun> run = RunChecked(OneRank(c), of_one);
      if (!run.ok()) of_one.push_back(run.status().ToString());
      for (const std::string& line : of_one) found.push_back(absl::StrCat("one rank: ", line));
      if (run.ok()) it->second = std::move(run->result);
    }
    return &it->second;
  }

  void RunCase(const LayoutCase& c) {
    const double start = Seconds();
    std::vector<std::string> found, counted;
    const LayoutResult& one = *Reference(c, found);
    const absl::StatusOr<LayoutRun> run = RunChecked(c, counted);
    if (run.ok()) {
      std::vector<std::string> different = Compare(one, run->result);
      if (!different.empty()) {
        const size_t all = different.size();
        different.resize(std::min<size_t>(all, 3));
        found.push_back(
            absl::StrCat("not the bits of one rank: ", all, " differ: ", absl::StrJoin(different, ", "), "..."));
      }
      found.insert(found.end(), counted.begin(), counted.end());
    } else {
      found.push_back(run.status().ToString());
    }
    ++ran_;
    equal_ += found.empty() ? 1 : 0;
    failed_ += found.empty() ? 0 : 1;
    for (const std::string& value : Values(c)) {
      ++tallies_[value].ran;
      tallies_[value].equal += found.empty() ? 1 : 0;
    }
    const std::string sha = run.ok() ? run->result.Sha().substr(0, 12) : "-";
    std::printf("%s %5.1fs %s %s\n", found.empty() ? "equal " : "DIFFERS", Seconds() - start, sha.c_str(),
                c.Name().c_str());
    for (size_t i = 0; i < found.size() && i < 6; ++i) std::printf("        %s\n", found[i].c_str());
    std::fflush(stdout);
  }

  // The validator accepts what the law promises, and names the field of what it does not.
  void ValidateShapes() {
    std::map<std::string, config::RunConfig> recipes;
    const std::vector<LayoutCase> all = AllShapes();
    for (size_t i = 0; i < all.size(); i += options_.shapes_step) {
      const LayoutCase& c = all[i];
      const auto [it, fresh] = recipes.try_emplace(c.recipe);
      if (fresh) it->second = RecipeConfig(c, options_.widths);
      Apply(c, it->second);
      const std::string field = RefusedField(c);
      const absl::Status status = config::Validate(it->second);
      const bool right = field.empty() ? status.ok() : !status.ok() && absl::StrContains(status.message(), field);
      (field.empty() ? legal_ : refused_) += 1;
      if (right) continue;
      if (++failed_ <= 10) {
        std::printf("WRONG   %s: should %s, but: %s\n", c.Name().c_str(),
                    field.empty() ? "be accepted" : absl::StrCat("name ", field).c_str(), status.ToString().c_str());
      }
    }
  }

  void PrintTable() const {
    for (const auto& [value, tally] : tallies_) {
      std::printf("  %-16s %3d of %3d\n", value.c_str(), tally.equal, tally.ran);
    }
  }

  const Options options_;
  std::map<std::string, LayoutResult> references_;
  std::map<std::string, Tally> tallies_;
  int ran_ = 0, equal_ = 0, failed_ = 0, legal_ = 0, refused_ = 0;
};

constexpr char kUsage[] =
    "layout_matrix [--list] [--only PART_OF_A_NAME] [--seed N] [--count N] [--steps N] [--fail-fast] [--spread | "
    "--recipe-widths]\n"
    "  --spread         25 narrow layouts, in seconds\n"
    "  --recipe-widths  widths as the recipes say\n";

// False: not understood.
bool Parse(int argc, char** argv, Options& options) {
  const std::map<std::string, std::function<bool(const char*)>> with_value = {
      {"--only", [&](const char* v) { return options.only = v, true; }},
      {"--seed", [&](const char* v) { return absl::SimpleAtoi(v, &options.seed); }},
      {"--count", [&](const char* v) { return absl::SimpleAtoi(v, &options.count); }},
      {"--steps", [&](const char* v) { return absl::SimpleAtoi(v, &options.steps) && options.steps > 0; }}};
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto found = with_value.find(flag);
    if (found != with_value.end()) {
      if (i + 1 >= argc || !found->second(argv[++i])) return false;
    } else if (flag == "--list") {
      options.list = true;
    } else if (flag == "--fail-fast") {
      options.fail_fast = true;
    } else if (flag == "--spread") {
      options.widths = Widths::kSmall;
      options.count = 25;
      options.shapes_step = 29;
    } else if (flag == "--recipe-widths") {
      options.widths = Widths::kRecipe;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  shoestring::Options options;
  if (!shoestring::Parse(argc, argv, options)) {
    std::fputs(shoestring::kUsage, stderr);
    return 64;
  }
  return shoestring::Matrix(options).Run();
}
