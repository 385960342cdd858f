/** The package for `require`: the same ES module, which Node.js 20.19 and newer load with it. */

import store = require('./index.js');

export = store;
