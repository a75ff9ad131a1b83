#include "stream_program/configuration.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "config/literals.h"
#include "config/option_table.h"
#include "config/pipeline_options.h"
#include "config/pipeline_reader.h"
#include "core/text.h"
#include "stream_program/overrides.h"

namespace relay::stream_program {

namespace {

using config::FieldType;
using config::fills;
using config::fills_nothing;
using config::Node;
using config::Option;
using config::problem;

/// Where Debian and its derivatives keep the authorities that are trusted by default.
constexpr std::string_view kSystemAuthorities = "/etc/ssl/certs/ca-certificates.crt";

constexpr Option<Settings> kSettings[] = {
    {{.name = "stream", .meaning = "the stream that is delivered"}, fills_nothing},
    {{.name = "streams", .meaning = "several streams, as a list"}, fills_nothing},
    {{.name = "sink", .meaning = "where the events of all streams go"}, fills_nothing},
    {{.name = "metrics_addr",
      .default_text = "0.0.0.0:9091",
      .meaning = "address and port of metrics and health"},
     fills<&Settings::metrics_addr>},
    {{.name = "log_format",
      .type = FieldType::choice,
      .default_text = "text",
      .meaning = "log lines as text or as JSON",
      .choices = "text,json"},
     fills<&Settings::log_format>},
    {{.name = "log_level",
      .type = FieldType::choice,
      .default_text = "info",
      .meaning = "the lowest level that is logged",
      .choices = "debug,info,warn,error"},
     fills<&Settings::log_level>},
    {{.name = "lease_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "an owner that was silent for that long is replaced",
      .min = 0.1,
      .max = 3600},
     fills<&Settings::lease_timeout>},
    {{.name = "drain_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "how long a shutdown waits for what is in flight",
      .max = 86400},
     fills<&Settings::drain_timeout>},
};
constexpr auto kSettingsFields = config::fields_of(kSettings);

/// The keys of a stream; a point stands for a level.
struct StreamValues {
  std::int64_t id = 0;
  std::string host, name, username, password;
  std::int64_t port = 0;
  std::optional<bool> tls;
  std::string root_certs;
  std::int64_t max_size = 0;
  std::optional<std::string> failover_after;
  std::optional<std::int64_t> failover_wal;
  std::string reader;
};

constexpr Option<StreamValues> kStream[] = {
    {{.name = "id",
      .type = FieldType::integer,
      .meaning = "the stream's id, as in pgstream.subscriptions",
      .required = true,
      .min = 1},
     fills<&StreamValues::id>},
    {{.name = "pg_connection.host", .meaning = "the server", .required = true},
     fills<&StreamValues::host>},
    {{.name = "pg_connection.port",
      .type = FieldType::integer,
      .default_text = "5432",
      .meaning = "its port",
      .min = 1,
      .max = 65535},
     fills<&StreamValues::port>},
    {{.name = "pg_connection.name", .meaning = "the database", .required = true},
     fills<&StreamValues::name>},
    {{.name = "pg_connection.username", .meaning = "the role", .required = true},
     fills<&StreamValues::username>},
    {{.name = "pg_connection.password", .meaning = "its password", .secret = true},
     fills<&StreamValues::password>},
    {{.name = "pg_connection.tls.enabled",
      .type = FieldType::boolean,
      .meaning = "true: only with TLS, and the server's certificate and name are checked; false: "
                 "without; default: with TLS where the server has it, unchecked"},
     fills<&StreamValues::tls>},
    {{.name = "pg_connection.tls.trusted_root_certs",
      .meaning = "the authorities to trust: PEM, or the path of a file; default: the system's"},
     fills<&StreamValues::root_certs>},
    {{.name = "batch.max_size",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "events of one batch at most",
      .min = 1,
      .max = 1e6},
     fills<&StreamValues::max_size>},
    // A sink without work gets an event at once, so that no batch is waited for.
    {{.name = "batch.max_fill_secs",
      .type = FieldType::number,
      .meaning = "the longest wait for a batch to fill, in seconds",
      .max = 3600},
     fills_nothing},
    {{.name = "batch.max_fill_ms",
      .type = FieldType::number,
      .meaning = "the same in milliseconds",
      .max = 3.6e6},
     fills_nothing},
    {{.name = "failover_after",
      .type = FieldType::text,
      .meaning = "how long an event may wait for the sink before the log is released; default: as "
                 "of the source"},
     fills<&StreamValues::failover_after>},
    {{.name = "failover_wal",
      .type = FieldType::bytes,
      .meaning = "the same, once so much of the log is held back; default: as of the source",
      .min = 1048576},
     fills<&StreamValues::failover_wal>},
    {{.name = "reader",
      .type = FieldType::choice,
      .default_text = "wal",
      .meaning = "wal: logical replication; table: queries, for a server or a role that may not "
                 "replicate",
      .choices = "wal,table"},
     fills<&StreamValues::reader>},
    {{.name = "sink", .meaning = "where its events go, instead of the sink of all"}, fills_nothing},
};
constexpr auto kStreamFields = config::fields_of(kStream);

void add(std::vector<Error>& problems, std::vector<Error> more) {
  std::ranges::move(more, std::back_inserter(problems));
}

bool is_group(std::string_view path) {
  return std::ranges::any_of(kStreamFields, [&](const config::Field& field) {
    return field.name.size() > path.size() && field.name.starts_with(path) &&
           field.name[path.size()] == '.';
  });
}

/// The keys of all levels, as in kStream. Options of pipelines and the sink go elsewhere.
struct Flattened {
  Node::Object own;
  Node::Object pipeline;
};

void flatten(const Node& node, const std::string& prefix, Flattened& out,
             std::vector<Error>& problems) {
  for (const auto& [key, value] : *node.object()) {
    const std::string path = prefix + key;
    if (prefix.empty() && key == "sink") continue;
    if (prefix.empty() && config::is_pipeline_option(key)) {
      out.pipeline.emplace_back(key, value);
    } else if (!is_group(path)) {
      out.own.emplace_back(path, value);
    } else if (value.object()) {
      flatten(value, path + '.', out, problems);
    } else if (!value.is_null()) {
      problems.push_back(
          problem(value.place(), "wrong_type", fmt::format("{} must hold keys and values", path)));
    }
  }
}

/// A value of a connection string.
std::string in_quotes(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + '\'';
}

Result<void> add_database(const StreamValues& values, StreamConfig& stream) {
  stream.database = fmt::format("host={} port={} dbname={} user={}", in_quotes(values.host),
                                values.port, in_quotes(values.name), in_quotes(values.username));
  if (!values.password.empty()) {
    stream.database += fmt::format(" password={}", in_quotes(values.password));
  }
  if (!values.tls) return {};
  if (!*values.tls) {
    stream.database += " sslmode=disable";
    return {};
  }
  std::string authorities = values.root_certs;
  if (authorities.find("-----BEGIN") != std::string::npos) {
    auto made = Certificates::make(authorities);
    if (!made) return fail(made.error());
    stream.certificates = std::move(*made);
    authorities = stream.certificates->path();
  }
  if (authorities.empty()) authorities = kSystemAuthorities;
  stream.database += fmt::format(" sslmode=verify-full sslrootcert={}", in_quotes(authorities));
  return {};
}

/// `headers` of an http sink may hold a token: they are sent, and kept nowhere.
Node sink_of(const Node& written, const config::Catalogue& catalogue,
             std::vector<Error>& problems) {
  const Node* type = written.find("type");
  const config::EndType* known = type && type->text() ? catalogue.sink(*type->text()) : nullptr;
  if (known == nullptr || known->name != "webhook") return written;
  Node::Object options;
  for (const auto& [key, value] : *written.object()) {
    config::merge_member(options, key == "headers" ? "request_headers" : key, value, problems);
  }
  return Node(std::move(options), written.place());
}

class ConfigurationReader {
 public:
  ConfigurationReader(const config::Catalogue& catalogue, const Node& root,
                      Configuration& configuration)
      : catalogue_(catalogue), root_(root), configuration_(configuration) {}

  void read() {
    read_settings();
    const Node* one = given("stream");
    const Node* several = given("streams");
    if (one && several) {
      report(several->place(), "conflict", "there are both stream and streams",
             "Put all streams under streams.");
    } else if (one) {
      read_stream(*one);
    } else if (several && several->array() && !several->array()->empty()) {
      for (const Node& node : *several->array()) read_stream(node);
    } else if (several) {
      report(several->place(), "wrong_type", "streams must be a list of streams",
             "Begin each with \"- id:\".");
    } else {
      report(root_.place(), "missing_option", "there is no stream",
             "Begin with \"stream:\", and give its id and pg_connection.");
    }
  }

 private:
  void report(std::string_view place, std::string_view code, std::string_view what,
              std::string remedy = {}) {
    configuration_.problems.push_back(problem(place, code, what, std::move(remedy)));
  }

  const Node* given(std::string_view key) const {
    const Node* node = root_.find(key);
    return node && !node->is_null() ? node : nullptr;
  }

  void read_settings() {
    Node::Object object;
    for (const auto& [key, value] : *root_.object()) {
      const bool is_part = key == "stream" || key == "streams" || key == "sink";
      if (!is_part) object.emplace_back(key, value);
    }
    auto& problems = configuration_.problems;
    const Node resolved =
        config::resolve_references(Node(std::move(object), root_.place()), true, problems);
    auto checked = config::check(*resolved.object(), kSettingsFields, root_.place());
    add(problems, std::move(checked.problems));
    if (auto done = config::fill(configuration_.settings, kSettings, checked.values); !done) {
      problems.push_back(done.error());
    }
  }

  void read_stream(const Node& node) {
    if (!node.object()) {
      report(node.place(), "wrong_type", "a stream must hold keys and values",
             "Give its id and pg_connection.");
      return;
    }
    auto& problems = configuration_.problems;
    Flattened keys;
    flatten(node, "", keys, problems);
    const Node resolved =
        config::resolve_references(Node(std::move(keys.own), node.place()), true, problems);
    auto checked = config::check(*resolved.object(), kStreamFields, node.place());
    add(problems, std::move(checked.problems));
    config::remember_secrets(checked.values, kStreamFields);
    auto values = config::filled<StreamValues>(kStream, checked.values);
    if (!values) {
      problems.push_back(values.error());
      return;
    }
    StreamConfig stream;
    stream.id = values->id;
    stream.replicates = values->reader == "wal";
    if (auto done = add_database(*values, stream); !done) problems.push_back(done.error());
    read_pipeline(node, *values, std::move(keys.pipeline), stream.pipeline);
    refuse_second(node, stream.id);
    configuration_.streams.push_back(std::move(stream));
  }

  void refuse_second(const Node& node, std::int64_t id) {
    const bool known = std::ranges::any_of(configuration_.streams,
                                           [&](const auto& other) { return other.id == id; });
    if (id == 0 || !known) return;
    report(node.place(), "conflict", fmt::format("there are two streams with id {}", id),
           "Give each stream an id of its own.");
  }

  void read_pipeline(const Node& node, const StreamValues& values, Node::Object options,
                     config::PipelineConfig& pipeline) {
    pipeline.name = fmt::format("stream-{}", values.id);
    pipeline.direction = "bridge";
    pipeline.place = node.place();
    const Node* sink = node.find("sink");
    if (!sink || sink->is_null()) sink = given("sink");
    if (!sink || !sink->object() || !sink->find("type")) {
      report(sink ? sink->place() : root_.place(), "missing_option", "the sink has no type",
             "Write \"sink:\" and below it \"type: memory\", or another one: see "
             "docs/running-postgres-stream.md.");
      return;
    }
    Node::Object source;
    const auto add = [&](const char* name, Node value) {
      source.emplace_back(name, std::move(value));
    };
    add("type", Node(std::string("stream"), node.place()));
    // Where the id is wrong, that was reported.
    add("stream", Node(std::max<std::int64_t>(values.id, 1), node.place()));
    add("reader", Node(values.reader, node.place()));
    if (values.failover_after) {
      add("failover_after", Node(*values.failover_after, place_of(node, "failover_after")));
    }
    if (values.failover_wal) {
      add("failover_wal", Node(*values.failover_wal, place_of(node, "failover_wal")));
    }
    options.emplace_back("batch_size", Node(values.max_size, node.place()));
    options.emplace_back("source", Node(std::move(source), node.place()));
    options.emplace_back("sink", sink_of(*sink, catalogue_, configuration_.problems));
    config::read_pipeline(catalogue_, pipeline, Node(std::move(options), node.place()),
                          config::Written::in_file);
  }

  static std::string place_of(const Node& node, std::string_view key) {
    const Node* found = node.find(key);
    return found ? found->place() : node.place();
  }

  const config::Catalogue& catalogue_;
  const Node& root_;
  Configuration& configuration_;
};

}  // namespace

postgres::Connection::Options options_of(const StreamConfig& stream, std::string application_name) {
  postgres::Connection::Options options;
  options.url = stream.database;
  options.application_name = std::move(application_name);
  return options;
}

Configuration read_configuration(const config::Catalogue& catalogue, std::string_view text,
                                 std::string_view file, const Overrides& overrides) {
  Configuration configuration;
  auto root = config::parse_yaml(text, file);
  if (!root) {
    configuration.problems.push_back(root.error());
    return configuration;
  }
  override_values(*root, overrides, configuration.problems);
  ConfigurationReader(catalogue, *root, configuration).read();
  return configuration;
}

}  // namespace relay::stream_program
