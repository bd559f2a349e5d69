// The table of illegal configs: one case at least for every rule between fields.
#pragma once

#include <string>
#include <vector>

namespace shoestring::config {

struct InvalidCase {
  std::string name;
  std::string recipe;
  std::vector<std::string> sets;  // --set that break it
  std::string field;              // of the problem that must be found
  std::string problem;            // part of its text or hint
};

std::vector<InvalidCase> InvalidCases();

}  // namespace shoestring::config
