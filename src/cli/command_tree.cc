#include "cli/command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace relay::cli {

std::vector<std::string> CommandOption::choices() const {
  std::vector<std::string> words;
  if (value.find('|') == value.npos) return words;
  for (std::string_view rest = value;;) {
    const auto bar = rest.find('|');
    words.emplace_back(rest.substr(0, bar));
    if (bar == rest.npos) return words;
    rest.remove_prefix(bar + 1);
  }
}

CommandTree describe(const CLI::App& app) {
  CommandTree tree;
  tree.name = app.get_name();
  tree.about = app.get_description();
  tree.footer = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    CommandOption described;
    described.meaning = option->get_description();
    described.required = option->get_required();
    if (option->get_items_expected_max() > 0) described.value = option->get_type_name();
    if (option->nonpositional()) {
      for (const std::string& name : option->get_lnames()) described.names.push_back("--" + name);
      for (const std::string& name : option->get_snames()) described.names.push_back("-" + name);
      tree.options.push_back(std::move(described));
    } else {
      described.names.push_back(option->get_name());
      tree.arguments.push_back(std::move(described));
    }
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!command->get_group().empty()) tree.commands.push_back(describe(*command));
  }
  return tree;
}

}  // namespace relay::cli
