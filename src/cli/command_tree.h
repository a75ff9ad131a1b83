#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace relay::cli {

/// A flag or an argument of a command.
struct CommandOption {
  std::vector<std::string> names;  ///< "--file", "-f"; of an argument its name
  std::string value;  ///< what it takes: "FILE", "DIR", "text|json"; empty: it is a switch
  std::string meaning;
  bool required = false;

  /// The words that its value is one of; empty: any.
  std::vector<std::string> choices() const;
};

/// A command of a program with all that it takes, and its commands. The parser's own tables: help,
/// the manual and completion are made from it.
struct CommandTree {
  std::string name;
  std::string about;
  std::string footer;
  std::vector<CommandOption> options;
  std::vector<CommandOption> arguments;
  std::vector<CommandTree> commands;
};

/// Describes what is not hidden.
CommandTree describe(const CLI::App& app);

}  // namespace relay::cli
