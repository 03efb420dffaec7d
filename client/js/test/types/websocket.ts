// The classes that connect() takes as WebSocket. This file is compiled only.

import { WebSocket as Ws } from 'ws'
import { connect } from '../../src/index.js'

connect('wss://host', { token: () => 't', WebSocket: Ws })
connect('wss://host', { token: () => 't', WebSocket: globalThis.WebSocket })
