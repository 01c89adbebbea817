{{- define "image" -}}
{{- $repository := required "image.repository: your registry's image" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}{{ else }}{{ $repository }}:{{ .Values.image.tag }}{{ end -}}
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/name: consilium-site
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The address of the gateway's service, from the environment: its name would need DNS, which is a way out. */}}
{{- define "gateway" -}}
$({{ printf "%s-gateway" .Release.Name | upper | replace "-" "_" }}_SERVICE_HOST):9094
{{- end }}

{{- /* "Restricted", by the Pod Security Standards. */}}
{{- define "pod" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "container" -}}
image: {{ include "image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* A secret's files are readable by a group; Consilium requires that their owner alone can read them. */}}
{{- define "keys" -}}
- name: keys
  {{- include "container" . | nindent 2 }}
  command: [sh, -c, "install -m 600 /given/* /state/link/"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  volumeMounts:
    - {name: given, mountPath: /given, readOnly: true}
    - {name: link, mountPath: /state/link}
{{- end }}

{{- /* Likewise the files for archives. */}}
{{- define "archive.keys" -}}
{{- if .Values.archiveSecret }}
- name: archive
  {{- include "container" . | nindent 2 }}
  command: [sh, -c, "install -m 600 /archive/* /state/link/"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  volumeMounts:
    - {name: archive, mountPath: /archive, readOnly: true}
    - {name: link, mountPath: /state/link}
{{- end }}
{{- end }}

{{- /* What has the data: the trainer, and the jobs that prepare it. */}}
{{- define "data.pod" -}}
{{- include "pod" . }}
{{- if and .trains .Values.gpu.count .Values.gpu.runtimeClass }}
runtimeClassName: {{ .Values.gpu.runtimeClass }}
{{- end }}
{{- if not .Values.dns }}
dnsPolicy: None
dnsConfig: {nameservers: [127.0.0.1]}
{{- end }}
{{- $named := list }}
{{- range .Values.archives }}
{{- if .name }}{{ $named = append $named . }}{{ end }}
{{- end }}
{{- if $named }}
hostAliases:
{{- range $named }}
  - {ip: {{ .cidr | splitList "/" | first | quote }}, hostnames: [{{ .name | quote }}]}
{{- end }}
{{- end }}
volumes:
  {{- with .Values.archiveSecret }}
  - {name: archive, secret: {secretName: {{ . }}}}
  {{- end }}
  - {name: site, configMap: {name: {{ .Release.Name }}-site}}
  - {name: given, secret: {secretName: {{ .Values.link }}, items: [{key: trainer.secret, path: trainer.secret}, {key: deputy.key, path: deputy.key}]}}
  - {name: link, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: state, persistentVolumeClaim: {claimName: {{ .Release.Name }}-state}}
  - name: data
    persistentVolumeClaim: {claimName: {{ required "data.claim: images and labels" .Values.data.claim }}, readOnly: true}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- end }}

{{- define "data.container" -}}
{{- include "container" . }}
env:
  - {name: CONSILIUM_GATEWAY, value: {{ include "gateway" . | quote }}}
{{- $resources := deepCopy .Values.resources.trainer }}
{{- if and .trains .Values.gpu.count }}
{{- $_ := set $resources.limits .Values.gpu.resource .Values.gpu.count }}
{{- end }}
resources: {{ toJson $resources }}
volumeMounts:
  - {name: state, mountPath: /state}
  - {name: site, mountPath: /state/site.yaml, subPath: site.yaml, readOnly: true}
  - {name: link, mountPath: /state/link}
  - {name: data, mountPath: /data, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- /* On the node of the trainer, which has the claim that a job needs: one node at a time may mount it. */}}
{{- define "beside" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "labels" . | nindent 12 }}
            part: trainer
{{- end }}
