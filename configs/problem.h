// What is wrong with a config and where it was said: problems in the form "file:line:col: field: problem; hint".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shoestring::config {

struct Problem {
  std::string place;  // "file:line:col", "file", or "--set"; may be empty
  std::string field;  // "model.heads"; may be empty
  std::string problem;
  std::string hint;  // how to mend it; may be empty

  std::string ToString() const;
};

// One line a problem, in the order found; OK when there are none.
absl::Status ProblemsToStatus(const std::vector<Problem>& problems);

// Where each field of a config was last said.
class Locations {
 public:
  // `place` of fields that no other place is known for, and of whose parents neither.
  void set_default_place(std::string place) { default_place_ = std::move(place); }
  void Set(const std::string& path, std::string place) { places_[path] = std::move(place); }
  // Forgets the field, its elements and all below it.
  void Erase(const std::string& path);
  // The place of the field, or of the nearest message around it.
  std::string Find(absl::string_view path) const;
  const std::map<std::string, std::string>& places() const { return places_; }
  const std::string& default_place() const { return default_place_; }

 private:
  std::map<std::string, std::string> places_;
  std::string default_place_;
};

}  // namespace shoestring::config
