{{- define "shoal.labels" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shoal.embedded" -}}
{{- if and (eq .Values.broker "nats-embedded") (not .Values.brokerInSecret) }}true{{ end }}
{{- end }}

{{- define "shoal.clustered" -}}
{{- if and (include "shoal.embedded" .) (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{- define "shoal.alone" -}}
{{- if and (eq .Values.broker "memory") (not .Values.brokerInSecret) }}true{{ end }}
{{- end }}

{{- define "shoal.check" -}}
{{- if and (include "shoal.embedded" .) (eq (int .Values.replicas) 2) }}
{{- fail "replicas is 2, want 1, 3 or 5: a cluster of two nodes with nats-embedded stops when one of them does" }}
{{- end }}
{{- if and (include "shoal.alone" .) (or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled) }}
{{- fail "broker is memory, want replicas of 1 without autoscaling, or a broker that joins the nodes" }}
{{- end }}
{{- end }}

{{- define "shoal.pod" -}}
metadata:
  labels:
    {{- include "shoal.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "shoal.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: shoal
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config=/etc/shoal/shoal.yaml]
      {{- if not (include "shoal.alone" .) }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: SHOAL_NODE_NAME
          value: $(POD_NAME)
      {{- end }}
      ports:
        - {name: http, containerPort: 8080}
        - {name: admin, containerPort: 9090}
        {{- if include "shoal.clustered" . }}
        - {name: cluster, containerPort: 6222}
        {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        failureThreshold: 30
      # Never /readyz: an outage of the broker must not restart the nodes.
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: config, mountPath: /etc/shoal, readOnly: true}
        - {name: secret, mountPath: /etc/shoal-secret, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if and (include "shoal.embedded" .) .Values.storage }}
        - {name: data, mountPath: /var/lib/shoal}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ .Release.Name }}-shoal}
    - name: secret
      secret: {secretName: {{ .Values.secret }}}
    - name: tmp
      emptyDir: {}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity:
    {{- toYaml .Values.affinity | nindent 4 }}
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "shoal.labels" . | nindent 10 }}
  {{- end }}
{{- end }}

{{- define "shoal.config" -}}
addr: 0.0.0.0:8080
admin-addr: 0.0.0.0:9090
jwt-secret-file: /etc/shoal-secret/jwt-secret
api-key-file: /etc/shoal-secret/api-key
shutdown-delay: {{ .Values.shutdownDelay }}
drain: {{ .Values.drain }}
{{- if .Values.brokerInSecret }}
broker-file: /etc/shoal-secret/broker
{{- else }}
broker: {{ .Values.broker }}
{{- end }}
{{- if include "shoal.clustered" . }}
cluster-secret-file: /etc/shoal-secret/cluster-secret
cluster-addr: 0.0.0.0:6222
cluster-route:
{{- range $i := until (int .Values.replicas) }}
  - {{ $.Release.Name }}-shoal-{{ $i }}.{{ $.Release.Name }}-shoal-cluster:6222
{{- end }}
{{- end }}
{{- if and (include "shoal.embedded" .) .Values.storage }}
broker-storage: file
broker-dir: /var/lib/shoal
{{- end }}
{{- with .Values.config }}
{{ toYaml . }}
{{- end }}
{{- end }}
