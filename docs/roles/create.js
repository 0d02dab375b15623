// Makes tandem's role and its account on one cluster; see OPERATIONS.md, "Roles".
//
//   TANDEM_ROLE=target TANDEM_DATABASES=shop,bank mongosh <connection string> docs/roles/create.js
//
// TANDEM_ROLE       target for a cluster that is written to, source for `a` of a one-way link
// TANDEM_DATABASES  every replicated database
// TANDEM_DATABASE   where `link.database` is another one than __tandem
// TANDEM_USER       the account, tandem unless told
// TANDEM_PASSWORD   its password; asked for unless told
//
// Run again, it gives the role what it should have and leaves the account and its password alone.

const fs = require("fs");
const path = require("path");
const given = process.env;
const admin = db.getSiblingDB("admin");

function read(kind) {
  if (kind !== "source" && kind !== "target") {
    throw new Error("TANDEM_ROLE must be source or target");
  }
  return JSON.parse(fs.readFileSync(path.join(__dirname, kind + ".json"), "utf8"));
}

// The privileges of the document, for each database in the place of the one it names.
function privileges(role, own, databases) {
  return role.privileges.flatMap((one) => {
    const name = one.resource.db;
    const names = name === "shop" ? databases : name === "__tandem" ? [own] : [name];
    return names.map((db) => ({
      ...one,
      resource: name === undefined ? one.resource : { ...one.resource, db },
    }));
  });
}

const role = read(given.TANDEM_ROLE);
const databases = (given.TANDEM_DATABASES || "").split(",").filter((name) => name !== "");
if (databases.length === 0) {
  throw new Error("TANDEM_DATABASES must name the replicated databases, separated by commas");
}
const granted = privileges(role, given.TANDEM_DATABASE || "__tandem", databases);
const name = role.createRole;
if (admin.getRole(name) === null) {
  admin.createRole({ role: name, privileges: granted, roles: [] });
} else {
  admin.updateRole(name, { privileges: granted, roles: [] });
}

const user = given.TANDEM_USER || "tandem";
if (admin.getUser(user) === null) {
  admin.createUser({ user, pwd: given.TANDEM_PASSWORD || passwordPrompt(), roles: [name] });
} else {
  admin.grantRolesToUser(user, [name]);
}
print(`${user} has ${name} over ${databases.join(", ")}`);
